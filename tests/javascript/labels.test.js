/** Labels are those of the server, which has written what it says of each case. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const { data, words, cases } = JSON.parse(readFileSync(process.env.AGENTSITE_LABELS, "utf8"));
const texts = { "chat-data": JSON.stringify(data), "chat-words": JSON.stringify(words) };
globalThis.document = { getElementById: (id) => ({ textContent: texts[id] }) };
const labels = await import("../../static/chat/page/labels.js");
const { readPairs } = await import("../../static/chat/log/pairs.js");
const { isBlank } = await import("../../static/chat/page/words.js");

/** @type {Record<string, (given: any) => string | boolean | string[][]>} */
const DESCRIBE = {
  step: labels.describeStep,
  decision: labels.describeDecision,
  ending: labels.describeEnding,
  agent: labels.nameOf,
  blank: isBlank,
  place: ({ place, count }) => labels.describePlace(place, count),
  session: labels.describeSession,
  group: ({ moment, pinned }) =>
    labels.describeGroup(new Date(moment), new Date(2026, 2, 30, 0, 30), pinned),
  pairs: readPairs,
  usage: labels.describeUsage,
  state: ({ message, position }) =>
    labels.describeState(message, {
      ...{ position, isStopping: false, isConnected: true, waiting: "" },
    }),
};

for (const [kind, given, expected] of cases) {
  test(`${kind}: ${JSON.stringify(given)}`, () => {
    assert.deepEqual(DESCRIBE[kind](given), expected);
  });
}

test("times of other days have their date", () => {
  const now = new Date(2026, 10, 30, 12);
  const at = (...parts) => labels.describeTime(new Date(...parts), now);
  assert.match(at(2026, 10, 30, 9, 17), /^09:17/);
  assert.match(at(2026, 10, 29, 9, 17), /Nov 29.*09:17/);
  assert.doesNotMatch(at(2026, 10, 29, 9, 17), /2026/);
  assert.match(at(2025, 10, 30, 9, 17), /Nov 30, 2025.*09:17/);
});
