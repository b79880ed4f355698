/** The page's view of a session, frame by frame, without a socket. */

import assert from "node:assert/strict";
import { test } from "node:test";
import * as frames from "./frames.js";
import {
  asked,
  at,
  complete,
  message,
  play,
  replying,
  started,
  status,
  TURN,
  token,
} from "./frames.js";

test("tokens are appended in order", () => {
  const played = play(...TURN, token(2, "one "), token(3, "two"));
  assert.deepEqual(played.texts, ["u1", "one two"]);
  assert.deepEqual(played.statuses, ["", "running"]);
  assert.deepEqual(played.effects, ["started"]);
  assert.deepEqual(played.cursor, { rev: 1, run_id: "r1", epoch: 1, seq: 3 });
});

test("what is old is dropped", () => {
  const played = play(...TURN, token(2, "one "), token(2, "one "), started(), token(3, "two"));
  assert.deepEqual(played.texts, ["u1", "one two"]);
});

test("a gap is asked for once", () => {
  const played = play(...TURN, token(3, "two"), token(4, "three"));
  assert.deepEqual(played.texts, ["u1", ""]);
  assert.deepEqual(played.effects, ["started", "resume"]);
  assert.equal(played.cursor.seq, 1);
});

test("a gap that stays ends in a reload", () => {
  const lost = [token(5, "late"), status("resumed", { rev: 2, recovered: true })];
  const played = play(...TURN, ...lost, ...lost, ...lost, ...lost);
  assert.deepEqual(played.effects, ["started", "resume", "resume", "resume", "reload"]);
});

test("too much was missed", () => {
  const played = play(status("resumed", { rev: 99, recovered: false }));
  assert.deepEqual(played.effects, ["reload"]);
});

test("the end counts after a gap too", () => {
  const played = play(...TURN, token(2, "one "), complete(9, "one two three"));
  assert.deepEqual(played.texts, ["u1", "one two three"]);
  assert.equal(played.statuses.at(-1), "completed");
  assert.deepEqual(played.effects, ["started", "ended"]);
  assert.deepEqual(played.cursor, { rev: 1 });
});

test("nothing follows the end", () => {
  const end = complete(3, "one");
  const played = play(...TURN, token(2, "one"), end, token(4, "!"), end, started());
  assert.deepEqual(played.texts, ["u1", "one"]);
  assert.deepEqual(played.effects, ["started", "ended"]);
});

test("a failed reply keeps its text", () => {
  const played = play(...TURN, token(2, "one"), frames.failed(3, "Something broke."));
  assert.deepEqual(played.texts, ["u1", "one"]);
  assert.deepEqual(played.statuses, ["", "failed"]);
});

test("a later epoch begins again", () => {
  const reset = status("run.reset", { run_id: "r1", run_number: 1, epoch: 2 });
  const again = [started({ epoch: 2 }), token(2, "new", { epoch: 2 })];
  for (const announced of [[reset, token(3, "older")], []]) {
    const played = play(...TURN, token(2, "old"), ...announced, ...again);
    assert.deepEqual(played.texts, ["u1", "new"]);
    assert.deepEqual(played.statuses, ["", "running"]);
    assert.deepEqual(played.generations, [0, 1]);
  }
});

test("a snapshot takes the place of what is shown", () => {
  const snapshot = (seq, text) =>
    status("snapshot", { parts: [{ type: "text", text }], run_status: "running", ...at(seq) });
  const last = ({ texts, generations }) => [texts.at(-1), generations.at(-1)];
  const grown = play(...TURN, token(2, "one "), snapshot(7, "one two"), token(8, "!"));
  assert.deepEqual(last(grown), ["one two!", 0]);
  assert.deepEqual(last(play(...TURN, token(2, "one "), snapshot(7, "else"))), ["else", 1]);
  assert.deepEqual(last(play(...TURN, token(2, "one "), snapshot(1, ""))), ["one ", 0]);
});

test("a later epoch goes on behind what stays", () => {
  const kept = { parts: [{ type: "text", text: "one " }], run_status: "running" };
  const snapshot = status("snapshot", { ...kept, ...at(2), epoch: 2 });
  const cut = [token(2, "one "), token(3, "lost")];
  const played = play(...TURN, ...cut, snapshot, token(4, "late"), token(3, "new", { epoch: 2 }));
  assert.equal(played.texts.at(-1), "one new");
  assert.deepEqual(played.effects, ["started"]);
  assert.deepEqual(played.cursor, { rev: 1, run_id: "r1", epoch: 2, seq: 3 });
});

const step = status("tool.started", { tool_call_id: "c", name: "search", ...at(3) });

test("text after a step is a part of its own", () => {
  const played = play(...TURN, token(2, "before"), step, token(4, "\n\nafter"));
  assert.deepEqual(played.texts, ["u1", "before\n\nafter"]);
  assert.deepEqual(played.kinds, ["text", "text tool text"]);
});

test("a whole message is not grown", () => {
  const parts = [{ type: "text", text: "all of it" }];
  const fields = { rev: 3, run_id: "r1", run_status: "completed", parts, html: "all of it" };
  const late = [token(3, " of it"), complete(4, "all of it")];
  const played = play(...TURN, token(2, "all"), message("a2", 2, "u1", fields), ...late);
  assert.deepEqual(played.texts, ["u1", "all of it"]);
  assert.deepEqual(played.effects, ["started", "ended"]);
});

test("an ended reply whose frames follow is grown by them", () => {
  const told = message("a2", 2, "u1", { rev: 3, run_id: "r1", run_status: "completed" });
  const rest = [step, token(4, "\n\nafter"), complete(5, "before\n\nafter")];
  const known = [...TURN, token(2, "before"), told, ...rest];
  const unknown = [asked("u1", 1, null), told, started(), token(2, "before"), ...rest];
  for (const sequence of [known, unknown]) {
    const played = play(...sequence);
    assert.deepEqual(played.kinds, ["text", "text tool text"]);
    assert.deepEqual(played.statuses, ["", "completed"]);
  }
});

test("what waits may end first", () => {
  const waiting = [asked("u3", 3, "a2"), replying("a4", 4, "u3", { run: "r2" })];
  const dropped = complete(1, "", { run: "r2", number: 2, epoch: 0, reply: "a4" });
  const played = play(...TURN, ...waiting, token(2, "one "), dropped, token(3, "two"));
  assert.deepEqual(played.texts, ["u1", "one two", "u3", ""]);
  assert.deepEqual(played.statuses, ["", "running", "", "completed"]);
  assert.equal(played.cursor.seq, 3);
});

test("what is not known is let pass", () => {
  const novelty = { type: "novelty", session_id: frames.SESSION, metadata: {} };
  const played = play(novelty, status("novelty"), ...TURN);
  assert.deepEqual(played.effects, ["started"]);
});

test("what is not known of a run counts", () => {
  const played = play(...TURN, status("novelty", at(2)), token(3, "one"));
  assert.deepEqual(played.texts, ["u1", "one"]);
});

function requested(seq, request_id = "q1") {
  const call = { tool_call_id: "c1", tool: "erase", description: "", arguments: "{}" };
  return status("input.requested", { request_id, expires_at: "", ...call, ...at(seq) });
}

function resolved(seq, request_id = "q1", decision = "approve") {
  return status("input.resolved", { request_id, decision, decided_at: "", ...at(seq) });
}

test("a reply waits for its requests and goes on", () => {
  const asking = [...TURN, token(2, "one"), requested(3), requested(4, "q2"), requested(4, "q2")];
  const waiting = play(...asking);
  assert.equal(waiting.statuses.at(-1), "awaiting_input");
  assert.deepEqual(waiting.effects, ["started", "asked", "asked"]);
  const half = play(...asking, resolved(5, "q2", "reject"));
  assert.equal(half.statuses.at(-1), "awaiting_input");
  const whole = play(...asking, resolved(5, "q2"), resolved(6), token(7, "\n\ntwo"));
  assert.equal(whole.statuses.at(-1), "running");
  assert.equal(whole.texts.at(-1), "one\n\ntwo");
  assert.equal(whole.kinds.at(-1), "text approval approval text");
});

test("a second answer is told apart", () => {
  const played = play(status("responded", { duplicate: true, request_id: "q1", run_id: "r1" }));
  assert.deepEqual(played.effects, ["answered"]);
});
