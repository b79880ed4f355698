/** Stored and unsent messages: which are shown, in which order, and what is acknowledged. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  asked,
  at,
  complete,
  EMPTY,
  message,
  newConversation,
  play,
  replying,
  SESSION,
  status,
  TURN,
  token,
} from "./frames.js";

test("another reply takes the place of the first", () => {
  const again = replying("a3", 3, "u1", { rev: 3, run: "r2" });
  assert.deepEqual(play(...TURN, complete(2, "first"), again).ids, ["u1", "a3"]);
});

test("a change to a left branch changes nothing", () => {
  const again = replying("a3", 3, "u1", { rev: 3, run: "r2" });
  const fields = { rev: 4, run_id: "r1", run_status: "cancelled", parts: [] };
  assert.deepEqual(play(...TURN, again, message("a2", 2, "u1", fields)).ids, ["u1", "a3"]);
});

test("children may come before their parents", () => {
  const children = [asked("u3", 3, "a2", 5), replying("a4", 4, "u3", { rev: 5, run: "r2" })];
  const before = [asked("u1", 1, null), ...children];
  assert.deepEqual(play(...before).ids, ["u1"]);
  const after = play(...before, replying("a2", 2, "u1", { rev: 5 }));
  assert.deepEqual(after.ids, ["u1", "a2", "u3", "a4"]);
});

test("a message may go before what waits", () => {
  const waiting = [asked("u3", 3, "a2"), replying("a4", 4, "u3", { run: "r2" })];
  const sooner = [asked("u5", 5, "a2", 3), replying("a6", 6, "u5", { rev: 3, run: "r3" })];
  const played = play(...TURN, ...waiting, ...sooner, asked("u3", 3, "a6", 3));
  assert.deepEqual(played.ids, ["u1", "a2", "u5", "a6", "u3", "a4"]);
});

test("a revision counts only when the next one comes", () => {
  assert.deepEqual(play(asked("u1", 1, null, 7)).cursor, { rev: 1 });
  const whole = play(asked("u1", 1, null, 7), asked("u3", 3, "u1", 8));
  assert.deepEqual(whole.cursor, { rev: 7 });
});

test("other sessions are not shown", () => {
  const foreign = [asked("u1", 1, null), token(1, "x")];
  assert.deepEqual(play(...foreign.map((frame) => ({ ...frame, session_id: "other" }))).ids, []);
});

test("a withdrawn message is gone, and so is the end of its run", () => {
  const waiting = [asked("u3", 3, "a2"), replying("a4", 4, "u3", { run: "r2" })];
  const gone = ["u3", "a4"].map((id) => message(id, 3, "a2", { rev: 3, withdrawn: true }));
  const end = complete(1, "", { run: "r2", number: 2, reply: "a4" });
  const played = play(...TURN, ...waiting, ...gone, end);
  assert.deepEqual(played.ids, ["u1", "a2"]);
  assert.deepEqual(played.effects, ["started"]);
});

const ENTRY = { client_message_id: "c1", session_id: SESSION, content: "hello" };

function accepted(session_id = SESSION) {
  const ids = { client_message_id: "c1", user_message_id: "u1", message_id: "a2", run_id: "r1" };
  return { ...status("accepted", ids), session_id };
}

test("an unsent message is shown until it is stored, once", () => {
  const conversation = newConversation();
  conversation.addUnsent(ENTRY);
  const ids = () => conversation.messages.map(({ message_id }) => message_id);
  assert.deepEqual(ids(), ["prompt:c1", "reply:c1"]);
  assert.deepEqual(
    conversation.apply(accepted()).map(({ kind }) => kind),
    ["accepted"],
  );
  assert.deepEqual(ids(), ["u1", "a2"]);
  conversation.apply(asked("u1", 1, null));
  conversation.apply(replying("a2", 2, "u1"));
  assert.deepEqual(ids(), ["u1", "a2"]);
});

test("the first message gives a new conversation its id", () => {
  const conversation = newConversation({ session_id: "" });
  conversation.addUnsent({ ...ENTRY, session_id: undefined });
  conversation.apply(accepted("another"));
  assert.equal(conversation.sessionId, "another");
});

test("what was stopped before it was accepted is cancelled then", () => {
  const conversation = newConversation();
  conversation.addUnsent(ENTRY);
  conversation.unsent.stopOnceAccepted("c1");
  assert.equal(conversation.isStopping(conversation.messages[1]), true);
  const effects = conversation.apply(accepted());
  assert.deepEqual(
    effects.map(({ kind }) => kind),
    ["accepted", "cancel"],
  );
  assert.equal(conversation.isStopping({ message_id: "a2", run_id: "r1" }), true);
});

test("it is cancelled though another conversation is shown by then", () => {
  const conversation = newConversation();
  conversation.addUnsent(ENTRY);
  conversation.unsent.stopOnceAccepted("c1");
  conversation.load(structuredClone(EMPTY));
  conversation.open(structuredClone({ ...EMPTY, session_id: "another" }));
  const [, cancel] = conversation.apply(accepted());
  assert.deepEqual(cancel, { kind: "cancel", run_id: "r1", session_id: SESSION });
  assert.equal(conversation.journal.cancelling.size, 0);
});

test("a refused message stays with its reason, a refused wish goes", () => {
  const conversation = newConversation();
  conversation.addUnsent(ENTRY);
  conversation.addUnsent({ client_message_id: "c2", content: "", regenerate: "a2" });
  for (const client_message_id of ["c1", "c2"]) {
    const metadata = { code: "busy", retryable: true, client_message_id };
    const [effect] = conversation.apply({ type: "error", content: "Busy.", metadata });
    assert.equal(effect.kind, "refused");
  }
  const [message, ...others] = conversation.messages;
  assert.deepEqual([message.state, message.note, others], ["refused", "Busy.", []]);
});

test("an edited message stands in the place of what followed its parent", () => {
  const conversation = newConversation();
  for (const frame of TURN) conversation.apply(structuredClone(frame));
  conversation.addUnsent({ ...ENTRY, parent_message_id: "" });
  const ids = conversation.messages.map(({ message_id }) => message_id);
  assert.deepEqual(ids, ["prompt:c1", "reply:c1"]);
});

/** A conversation of `length` messages, the last of which is a reply that is being written. */
function longConversation(length) {
  const messages = Array.from({ length }, (_, index) => ({
    message_id: index + 1 === length ? "a2" : `m${index}`,
    ...{ number: index + 1, role: index % 2 ? "assistant" : "user" },
    parent_message_id: index ? `m${index - 1}` : null,
    ...(index + 1 === length ? { run_id: "r1", run_status: "running" } : {}),
  }));
  return newConversation({ messages, run: at(1) });
}

test("a token takes no more steps in a long conversation than in a short one", (context) => {
  function countSteps(length) {
    const conversation = longConversation(length);
    conversation.apply(token(2, "one "));
    assert.equal(conversation.messages.length, length);
    const { mock } = context.mock.method(Map.prototype, "get");
    conversation.apply(token(3, "two"));
    assert.ok(conversation.isBusy);
    assert.equal(conversation.messages.at(-1).parts[0].text, "one two");
    const steps = mock.callCount();
    mock.restore();
    return steps;
  }
  assert.equal(countSteps(1_000), countSteps(4));
});

test("what has changed is told once", () => {
  const { branch } = longConversation(10);
  assert.equal(branch.takeChanged().length, 10);
  branch.set({ ...branch.get("m3"), summary: "three" });
  const { structure } = branch;
  assert.deepEqual(
    branch.takeChanged().map(({ message_id }) => message_id),
    ["m3"],
  );
  assert.deepEqual(branch.takeChanged(), []);
  branch.set({ message_id: "m10", number: 11, parent_message_id: "a2" });
  assert.notEqual(branch.structure, structure);
});

test("a page that is loaded again keeps the messages before it", () => {
  const conversation = longConversation(10);
  const page = {
    ...EMPTY,
    messages: conversation.messages.slice(4),
    siblings: { m5: ["m6", "x"] },
  };
  assert.equal(conversation.load(structuredClone(page)), true);
  assert.equal(conversation.messages.length, 10);
  assert.equal(conversation.load(structuredClone({ ...EMPTY, messages: [] })), false);
});

test("the same once another conversation is shown, whose runs have nothing to do with it", () => {
  const conversation = newConversation();
  conversation.addUnsent({ client_message_id: "c1", content: "one" });
  conversation.unsent.stopOnceAccepted("c1");
  conversation.open({ ...structuredClone(EMPTY), session_id: "other" });
  const ids = { client_message_id: "c1", user_message_id: "u1", message_id: "a2", run_id: "r1" };
  assert.deepEqual(conversation.apply(status("accepted", ids)), [
    { kind: "accepted", client_message_id: "c1", session_id: SESSION },
    { kind: "cancel", session_id: SESSION, run_id: "r1" },
  ]);
  assert.deepEqual([...conversation.journal.cancelling], []);
  assert.deepEqual(conversation.messages, []);
});

test("an error about another conversation is not told in this one", () => {
  const conversation = newConversation();
  const metadata = { code: "not_found", retryable: false };
  const error = { type: "error", session_id: "other", content: "No.", metadata };
  assert.deepEqual(conversation.apply(error), []);
  const notice = [{ kind: "notice", text: "No." }];
  assert.deepEqual(conversation.apply({ ...error, session_id: SESSION }), notice);
  assert.deepEqual(conversation.apply({ ...error, session_id: "" }), notice);
});
