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
let sender;
let typed = [];

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
  typed = [];
  const composer = { take: (text) => typed.push(text), setHint: () => {} };
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

test("what is postponed can be taken back, and those behind it are sent", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  await sender.submit("one", {});
  const { client_message_id } = sent[0].metadata;
  sender.postpone(client_message_id, 5);
  await sender.submit("two", {});
  sender.takeBack(client_message_id);
  assert.deepEqual(typed, ["one"]);
  assert.equal(sender.outbox.get(client_message_id), undefined);
  context.mock.timers.tick(7_501);
  assert.deepEqual(contents(), ["one", "two"]);
});

test("a postponed request for another reply can be taken back", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  await sender.submit("", { regenerate: "a2" });
  const { client_message_id } = sent[0].metadata;
  sender.postpone(client_message_id, 5);
  sender.takeBack(client_message_id);
  assert.deepEqual(typed, []);
  assert.equal(sender.conversation.unsent.size, 0);
  context.mock.timers.tick(7_501);
  assert.equal(sent.length, 1);
});

test("what was stopped and then refused is not stopped when it is sent again", async () => {
  await sender.submit("one", {});
  const { client_message_id } = sent[0].metadata;
  sender.takeBack(client_message_id);
  refuse(sent[0], 0);
  sender.resend(client_message_id);
  const { messages } = sender.conversation;
  assert.equal(
    messages.some((message) => sender.conversation.isStopping(message)),
    false,
  );
});

test("only messages of the conversation that is shown are claimed", () => {
  const claims = [];
  sender.outbox.claim = (_isWanted, signal) => claims.push(signal);
  sender.open();
  sender.open();
  assert.deepEqual(
    claims.map(({ aborted }) => aborted),
    [true, false],
  );
});

test("what was refused in several new conversations is all shown in the next one", () => {
  sender.conversation.open({ ...structuredClone(EMPTY), session_id: "" });
  sender.open();
  for (const id of ["a", "b"]) {
    const entry = { client_message_id: id, content: id, begins: id, refused: "No." };
    sender.outbox.add(entry);
    sender.outbox.dispatchEvent(new CustomEvent("claim", { detail: entry }));
  }
  const shown = sender.conversation.messages.map(({ client_message_id }) => client_message_id);
  assert.deepEqual(shown, ["a", "b"]);
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
  assert.deepEqual(typed, []);
  assert.deepEqual(sent, []);
  // Released to whoever shows that conversation next.
  assert.equal(sender.outbox.get(client_message_id), undefined);
});

function contents() {
  return sent.map(({ content }) => content);
}
