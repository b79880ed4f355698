/** The hint about what waits is that of the conversation that is shown. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { EMPTY, newConversation } from "./frames.js";

const WORDS = { composer: { queued_one: "one waits", queued: "{count} wait" } };
globalThis.document = {
  getElementById: () => ({ textContent: JSON.stringify(WORDS) }),
  addEventListener() {},
  visibilityState: "hidden",
};
const { ChatScreen } = await import("../../static/chat/page/chat_screen.js");

test("it is told again for another conversation with as many", (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const queue = [{ run_id: "r1", content: "waits" }];
  const conversation = newConversation({ queue });
  const hints = [];
  const composer = { setBusy() {}, setHint: (text) => hints.push(text) };
  const none = { sync() {}, show() {}, setBusy() {} };
  const parts = { transcript: none, queue: none, title: none, approvals: none };
  const screen = new ChatScreen({ conversation, composer, ...parts, isConnected: () => true });
  const draw = () => {
    screen.draw();
    context.mock.timers.tick(0);
  };
  draw();
  draw();
  conversation.open(structuredClone({ ...EMPTY, session_id: "another", queue }));
  draw();
  conversation.queue = [];
  draw();
  assert.deepEqual(hints, ["one waits", "one waits", ""]);
});
