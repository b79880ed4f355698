/** What waits in the browser: kept by user, claimed once, moved along. */

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { Outbox } from "../../static/chat/sending/outbox.js";

/** As much of `Storage` as is used: entries are its own keys. */
class FakeStorage {
  getItem(key) {
    return this[key] ?? null;
  }
  setItem(key, value) {
    this[key] = value;
  }
  removeItem(key) {
    delete this[key];
  }
}

beforeEach(() => {
  globalThis.localStorage = new FakeStorage();
  globalThis.sessionStorage = new FakeStorage();
  // Without locks the server tells doubles by their id.
  Object.defineProperty(globalThis, "navigator", { value: {}, configurable: true });
});

function claimedBy(user) {
  const outbox = new Outbox(user);
  outbox.claim(() => true);
  return outbox.entries.map(({ client_message_id, session_id }) => [client_message_id, session_id]);
}

test("what was not sent is there after a reload, oldest first", (context) => {
  context.mock.timers.enable({ apis: ["Date"] });
  const outbox = new Outbox("ann");
  outbox.add({ client_message_id: "b", content: "one", session_id: "s" });
  context.mock.timers.tick(1);
  outbox.add({ client_message_id: "a", content: "two", session_id: "s" });
  assert.deepEqual(claimedBy("ann"), [
    ["b", "s"],
    ["a", "s"],
  ]);
});

test("nobody else sees it", () => {
  new Outbox("ann").add({ client_message_id: "a", content: "one" });
  assert.deepEqual(claimedBy("ben"), []);
});

test("a visitor's is kept in the tab, and goes along with them", () => {
  const outbox = new Outbox("");
  outbox.add({ client_message_id: "a", content: "one" });
  assert.deepEqual(Object.keys(localStorage), []);
  outbox.belongTo("guest");
  assert.deepEqual(Object.keys(sessionStorage), []);
  assert.deepEqual(claimedBy("guest"), [["a", undefined]]);
});

test("what waited for its conversation goes there", () => {
  const outbox = new Outbox("ann");
  outbox.add({ client_message_id: "a", content: "one", begins: "a" });
  outbox.add({ client_message_id: "b", content: "two", begins: "b" });
  outbox.moveTo("s", "a");
  assert.deepEqual(claimedBy("ann"), [
    ["a", "s"],
    ["b", undefined],
  ]);
});

test("what is refused is kept and not sent", () => {
  const outbox = new Outbox("ann");
  outbox.add({ client_message_id: "a", content: "one" });
  outbox.change("a", { refused: "Too much." });
  assert.deepEqual(outbox.unsent, []);
  assert.deepEqual(claimedBy("ann"), [["a", undefined]]);
});

test("what is too old is dropped", (context) => {
  context.mock.timers.enable({ apis: ["Date"] });
  new Outbox("ann").add({ client_message_id: "a", content: "one" });
  context.mock.timers.tick(31 * 24 * 3_600_000);
  assert.deepEqual(claimedBy("ann"), []);
  assert.deepEqual(Object.keys(localStorage), []);
});

test("where storage is blocked it lives as long as the page", () => {
  globalThis.localStorage = undefined;
  const outbox = new Outbox("ann");
  outbox.add({ client_message_id: "a", content: "one" });
  assert.equal(outbox.unsent.length, 1);
  assert.equal(outbox.isAtRisk, true);
  globalThis.localStorage = new FakeStorage();
  outbox.change("a", { isTried: true });
  assert.equal(outbox.isAtRisk, false);
});
