/** The search of conversations asks the server no more often than it has to. */

import assert from "node:assert/strict";
import { test } from "node:test";

const words = { manage: {} };
const texts = {
  "chat-data": '{"urls": {"sessions": "/api/sessions/"}}',
  "chat-words": JSON.stringify(words),
};
globalThis.document = { getElementById: (id) => ({ textContent: texts[id] }), cookie: "" };
const { SessionSearch } = await import("../../static/chat/sessions/search.js");

function newElement(fields = {}) {
  return { addEventListener: () => {}, matches: () => false, ...fields };
}

test("results are renewed seldom while conversations change", async (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  const asked = [];
  globalThis.fetch = async (address) => {
    asked.push(address);
    throw new Error("not here");
  };
  const search = new SessionSearch({
    field: newElement({ value: "tide" }),
    archive: newElement({ ariaPressed: "false" }),
    ...{ status: newElement(), found: newElement(), more: newElement() },
    list: { element: newElement() },
  });
  for (let frames = 0; frames < 40; frames += 1) {
    search.refresh();
    context.mock.timers.tick(250);
  }
  assert.equal(asked.length, 2);
});
