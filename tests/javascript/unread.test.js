/** Conversations are unread from the end of a reply until it is seen. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Unread } from "../../static/chat/sessions/unread.js";

let stored = {};
globalThis.localStorage = {
  getItem: (key) => stored[key] ?? null,
  setItem: (key, value) => {
    stored[key] = value;
  },
};
globalThis.addEventListener = () => {};

/** A page that shows the session `current`. */
function open(current, visibilityState = "visible") {
  globalThis.document = { visibilityState, addEventListener: () => {} };
  return new Unread({ user: "ann", getCurrent: () => current, onChange: () => {} });
}

test("the end of a reply that was seen in progress is unread", () => {
  stored = {};
  const page = open("here");
  assert.equal(page.note("there", false), false);
  assert.equal(page.note("there", true), false);
  assert.equal(page.note("there", false), true);
  assert.equal(open("elsewhere").note("there", false), true);
  assert.equal(open("there").note("there", false), false);
  assert.equal(page.note("there", false), true);
});

test("it may end while no page is open", () => {
  stored = {};
  open("there").note("there", true);
  assert.equal(open("here").note("there", false), true);
});

test("it is not seen on a page in the background", () => {
  stored = {};
  const page = open("there", "hidden");
  page.note("there", true);
  assert.equal(page.note("there", false), true);
  globalThis.document.visibilityState = "visible";
  assert.equal(page.note("there", false), false);
});

test("marks are bounded", () => {
  stored = {};
  const page = open("here");
  for (let number = 0; number < 500; number += 1) page.note(`s${number}`, true);
  assert.equal(Object.keys(JSON.parse(stored["agentsite.unread.ann"])).length, 200);
});
