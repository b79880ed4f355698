/** The end of a text that grows, and the parts that tokens are folded into. */

import assert from "node:assert/strict";
import { test } from "node:test";
import * as parts from "../../static/chat/conversation/parts.js";
import { RunCursor } from "../../static/chat/conversation/run_cursor.js";
import { languageOf } from "../../static/chat/markdown/nodes.js";
import { parse } from "../../static/chat/markdown/parser.js";
import { presentable } from "../../static/chat/markdown/tail.js";
import { at } from "./frames.js";

test("what is open is closed, and what may become a mark waits", () => {
  const shown = {
    "a **bold": "a **bold**",
    "a *word": "a *word*",
    "some `code": "some `code`",
    "~~gone": "~~gone~~",
    "[here](https://exa": "[here]()",
    "text\n#": "text\n",
    "text\n```": "text\n",
    "- one\n- ": "- one\n",
    "2*3": "2*3",
    "```\n**not": "```\n**not",
    "| a | b |": "",
  };
  for (const [text, expected] of Object.entries(shown)) assert.equal(presentable(text), expected);
});

test("headings stand below those of the page", () => {
  const tags = parse("# One\n\n### Two\n\n# Three").flatMap(({ type, tag }) =>
    type === "heading_open" ? tag : [],
  );
  assert.deepEqual(tags, ["h3", "h4", "h3"]);
});

test("pictures are links", () => {
  const [, { children }] = parse("![a cat](https://example.org/cat.png)");
  assert.deepEqual(
    children.map(({ tag, content }) => tag || content),
    ["a", "a cat", "a"],
  );
});

test("a language is a plain word", () => {
  assert.equal(languageOf("Python title=x"), "python");
  assert.equal(languageOf('"><script>'), "");
});

test("tokens of a run are its texts, joined", () => {
  const shown = [];
  parts.addText(shown, "one");
  parts.addReasoning(shown, "hm");
  parts.addText(shown, "\n\ntwo");
  assert.equal(parts.joinText(shown), "one\n\ntwo");
  assert.deepEqual(
    shown.map(({ type }) => type),
    ["text", "reasoning", "text"],
  );
});

test("a step that is still at work at the end has failed", () => {
  const shown = [];
  const call = { tool_call_id: "c", name: "search" };
  parts.applyTool(shown, { event: "tool.started", ...call });
  parts.applyTool(shown, { event: "tool.progress", progress: "half", ...call });
  parts.closeTools(shown);
  assert.deepEqual(shown, [{ type: "tool", ...call, progress: "half", status: "failed" }]);
});

test("a call of the same id that starts later is another step", () => {
  const shown = [];
  const call = { tool_call_id: "c", name: "search" };
  parts.applyTool(shown, { event: "tool.started", ...call });
  parts.applyTool(shown, { event: "tool.finished", output: "1", ...call });
  parts.applyTool(shown, { event: "tool.started", ...call });
  assert.deepEqual(
    shown.map(({ status }) => status),
    ["finished", "started"],
  );
});

test("a cursor takes frames one by one", () => {
  const cursor = new RunCursor(null);
  assert.equal(cursor.placeOf(at(2)), "gap");
  assert.equal(cursor.placeOf(at(1)), "next");
  cursor.moveTo(at(1));
  assert.equal(cursor.placeOf(at(1)), "old");
  assert.equal(cursor.placeOf(at(2)), "next");
  assert.equal(cursor.placeOf(at(3)), "gap");
  assert.equal(cursor.placeOf(at(1, { epoch: 2 })), "next");
  assert.equal(cursor.placeOf(at(9, { epoch: 0 })), "old");
  assert.equal(cursor.placeOf(at(9, { run: "r0", number: 0 })), "old");
  assert.equal(cursor.placeOf(at(1, { run: "r2", number: 2 })), "gap");
  cursor.end("r1");
  assert.equal(cursor.placeOf(at(2)), "old");
});

test("a gap that stays is mended by a reload", () => {
  const cursor = new RunCursor(null);
  const repairs = [1, 2, 3, 4].map(() => cursor.repair());
  assert.deepEqual(repairs, ["resume", "resume", "resume", "reload"]);
});
