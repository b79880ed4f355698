/** What a busy server has no room for is sent again, in its order and once. */

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { EMPTY, newConversation, SESSION } from "./frames.js";

// The page's data and its texts.
const TEXTS = '{"frame_max_bytes": 65536, "composer": {}, "manage": {}}';
globalThis.document = { getElementById: () => ({ textContent: TEXTS }) };
Object.defineProperty(globalThis, "navigator", { value: {}, configurable: true });
const { Outbox } = await import("../../static/chat/sending/outbox.js");
const { Sender } = await import("../../static/chat/sending/sender.js");

let sent = [];
let taken = [];
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
  taken = [];
  const composer = { take: (text) => taken.push(text), setHint: () => {} };
  const page = { composer, picker: {}, draw: () => {}, follow: () => {} };
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

test("while it is postponed, stopping takes it back", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  await sender.submit("one", {});
  const { client_message_id } = sent[0].metadata;
  sender.postpone(client_message_id, 5);
  sender.takeBack(client_message_id);
  assert.deepEqual(taken, ["one"]);
  context.mock.timers.tick(7_501);
  assert.deepEqual(contents(), ["one"]);
  assert.equal(sender.conversation.isBusy, false);
});

test("the same with a request for another reply, which leaves no text", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  await sender.submit("", { regenerate: "a2" });
  const { client_message_id } = sent[0].metadata;
  sender.postpone(client_message_id, 5);
  sender.takeBack(client_message_id);
  context.mock.timers.tick(7_501);
  assert.equal(sent.length, 1);
  assert.deepEqual(taken, []);
  assert.equal(sender.conversation.isBusy, false);
});

test("what had no place yet stays in the conversation that was left", async () => {
  let loaded;
  const loading = new Promise((resolve) => {
    loaded = resolve;
  });
  const submitted = sender.submit("one", {}, loading);
  const [{ client_message_id }] = sender.outbox.entries;
  sender.conversation.open({ ...structuredClone(EMPTY), session_id: "other" });
  sender.open();
  loaded(false);
  await submitted;
  assert.deepEqual(taken, []);
  assert.deepEqual(sent, []);
  // Released to whoever shows that conversation next.
  assert.equal(sender.outbox.get(client_message_id), undefined);
});

function contents() {
  return sent.map(({ content }) => content);
}
