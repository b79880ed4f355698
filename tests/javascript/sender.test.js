/** What a busy server has no room for is sent again, in its order and once. */

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { EMPTY, newConversation, SESSION } from "./frames.js";

globalThis.document = { getElementById: () => ({ textContent: '{"frame_max_bytes": 65536}' }) };
Object.defineProperty(globalThis, "navigator", { value: {}, configurable: true });
const { Outbox } = await import("../../static/chat/sending/outbox.js");
const { Sender } = await import("../../static/chat/sending/sender.js");

let sent = [];
let sender;

/** Refuse a message as a server does that has room again after `seconds`. */
function refuse(message, seconds) {
  const metadata = { code: "unavailable", retryable: true, retry_after: seconds };
  const { client_message_id } = message.metadata;
  const frame = { type: "error", session_id: SESSION, content: "Later." };
  return sender.conversation.apply({ ...frame, metadata: { ...metadata, client_message_id } });
}

beforeEach(() => {
  sent = [];
  const connection = { state: "open", send: (frame) => sent.push(frame) };
  const conversation = newConversation(EMPTY);
  const page = { composer: {}, picker: {}, draw: () => {}, follow: () => {} };
  sender = new Sender({ ...page, connection, outbox: new Outbox("ann"), conversation });
});

test("it is postponed, and not shown as refused", async () => {
  await sender.submit("one", {});
  const [effect] = refuse(sent[0], 5);
  const { client_message_id } = sent[0].metadata;
  assert.deepEqual(effect, { kind: "postponed", client_message_id, retry_after: 5 });
  assert.equal(sender.conversation.unsent.promptOf(client_message_id).state, "sending");
});

test("it is sent after the time that the server gives, before later messages", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  await sender.submit("one", {});
  sender.postpone(sent[0].metadata.client_message_id, 5);
  await sender.submit("two", {});
  // Another connection does not make it sooner.
  sender.begin();
  sender.flush();
  context.mock.timers.tick(4_999);
  assert.deepEqual(contents(), ["one"]);
  context.mock.timers.tick(2_501);
  assert.deepEqual(contents(), ["one", "one", "two"]);
  assert.equal(sent[0].metadata.client_message_id, sent[1].metadata.client_message_id);
});

test("messages of other conversations do not wait for it", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  await sender.submit("one", {});
  sender.postpone(sent[0].metadata.client_message_id, 5);
  const elsewhere = { client_message_id: "b", session_id: "other", content: "two" };
  sender.outbox.add(elsewhere);
  sender.flush();
  assert.deepEqual(contents(), ["one", "two"]);
});

function contents() {
  return sent.map(({ content }) => content);
}
