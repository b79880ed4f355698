/** The welcome that another conversation brings follows the choice of the agent too. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { AgentPicker } from "../../static/chat/sending/agent_picker.js";

function partsOf(...names) {
  return {
    input: names.map((value) => ({ value, checked: value === names[0] })),
    "[data-agent]": names.map((agent) => ({ dataset: { agent }, hidden: false })),
  };
}

test("cards of another welcome follow the choice", () => {
  let parts = partsOf("one", "two");
  const welcome = Object.assign(new EventTarget(), { querySelectorAll: (name) => parts[name] });
  const picker = new AgentPicker(welcome, null);
  parts = partsOf("one", "two");
  picker.choose("two");
  assert.deepEqual(
    parts["[data-agent]"].map(({ hidden }) => hidden),
    [true, false],
  );
  assert.equal(parts.input[1].checked, true);
});
