/** Labels are those of the server, which has written what it says of each case. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const { data, words, cases } = JSON.parse(readFileSync(process.env.AGENTSITE_LABELS, "utf8"));
const texts = { "chat-data": JSON.stringify(data), "chat-words": JSON.stringify(words) };
globalThis.document = { getElementById: (id) => ({ textContent: texts[id] }) };
const labels = await import("../../static/chat/page/labels.js");
const { isBlank } = await import("../../static/chat/page/words.js");

/** @type {Record<string, (given: any) => string | boolean>} */
const DESCRIBE = {
  step: labels.describeStep,
  decision: labels.describeDecision,
  ending: labels.describeEnding,
  agent: labels.nameOf,
  blank: isBlank,
  place: ({ place, count }) => labels.describePlace(place, count),
  session: labels.describeSession,
  state: ({ message, position }) =>
    labels.describeState(message, {
      ...{ position, isStopping: false, isConnected: true, waiting: "" },
    }),
};

for (const [kind, given, expected] of cases) {
  test(`${kind}: ${JSON.stringify(given)}`, () => {
    assert.equal(DESCRIBE[kind](given), expected);
  });
}
