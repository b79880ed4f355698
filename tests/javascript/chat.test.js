/** What the user asked for in one conversation is not asked of another that is shown later. */

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { EMPTY, newConversation, SESSION } from "./frames.js";

globalThis.document = {
  getElementById: () => ({ textContent: '{"urls": {"session": ""}, "feedback": {}}' }),
  documentElement: {},
  addEventListener() {},
};
const { Chat } = await import("../../static/chat/chat.js");

const EDIT = { content: "as it is to be", metadata: { op: "edit", run_id: "r1" } };
let sent = [];
let connection;
let conversation;
let queue;

beforeEach(() => {
  sent = [];
  connection = new EventTarget();
  Object.assign(connection, { state: "open", send: (frame) => sent.push(frame) });
  conversation = newConversation({ queue: [{ run_id: "r1", content: "as it was" }] });
  queue = new EventTarget();
  const none = { draw() {}, pause() {}, begin() {}, flush() {}, sendAgain() {}, fits: () => true };
  const kept = { idsOf: () => [], write() {} };
  const page = { connection, conversation, queue, kept, screen: none, sender: none };
  Object.assign(page, { approvals: none });
  new Chat({ ...page, composer: new EventTarget(), history: new EventTarget() });
});

function show(session_id, waiting = []) {
  conversation.open(structuredClone({ ...EMPTY, session_id, queue: waiting }));
}

function reconnect() {
  sent = [];
  connection.dispatchEvent(new Event("state"));
  return sent.filter(({ type }) => type === "queue");
}

test("a lost edit of a queued message is sent again for its own conversation", () => {
  queue.dispatchEvent(new CustomEvent("change", { detail: EDIT }));
  show("another");
  connection.dispatchEvent(new CustomEvent("frame", { detail: { type: "ping" } }));
  assert.deepEqual(reconnect(), [{ type: "queue", session_id: SESSION, ...EDIT }]);
  show(SESSION, [{ run_id: "r1", content: EDIT.content }]);
  connection.dispatchEvent(new CustomEvent("frame", { detail: { type: "ping" } }));
  assert.deepEqual(reconnect(), []);
});
