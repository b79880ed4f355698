/**
 * Markdown on the page is what the server makes of it: whole, and growing by each character.
 *
 * The server has written what it makes of each text. No browser is needed: a DOM in JavaScript
 * holds what the page's modules make.
 */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const { AGENTSITE_MARKDOWN, AGENTSITE_DOM } = process.env;
// The DOM keeps a map of listeners for each node: a third of all work, and nothing listens here.
const PlainMap = globalThis.WeakMap;
globalThis.WeakMap = class extends PlainMap {
  set(key, value) {
    return value instanceof Map && value.size === 0 ? this : super.set(key, value);
  }
};
const { parseHTML } = await import(AGENTSITE_DOM);
globalThis.WeakMap = WeakMap;
const page = parseHTML("<!doctype html><html><body></body></html>");
for (const name of ["document", "Element", "HTMLElement", "Text"]) globalThis[name] = page[name];
const { MarkdownStream } = await import("../../static/chat/markdown/stream.js");

const LONG = 2_000;
const cases = JSON.parse(readFileSync(AGENTSITE_MARKDOWN, "utf8"));

/** @param {ParentNode} root */
const blocksOf = (root) => [...root.children].map(written);

/**
 * The HTML of a node, with its attributes in one order.
 * @param {Node} node
 */
function written(node) {
  if (node instanceof Text) return node.data.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  const attributes = [...node.attributes].map(({ name, value }) => ` ${name}="${value}"`).sort();
  const name = node.localName;
  return `<${name}${attributes.join("")}>${[...node.childNodes].map(written).join("")}</${name}>`;
}

/** @param {string} html */
function holding(html) {
  const element = document.createElement("div");
  element.innerHTML = html;
  return element;
}

function grow(text, step) {
  const element = document.createElement("div");
  const stream = new MarkdownStream(element);
  for (let end = step; end < text.length + step; end += step) stream.draw(text.slice(0, end));
  return { element, stream };
}

for (const { name, text, html } of cases) {
  const wanted = blocksOf(holding(html));
  test(`${name}: at once`, () => {
    const element = document.createElement("div");
    new MarkdownStream(element).finish(text);
    assert.deepEqual(blocksOf(element), wanted);
  });
  const steps = name.startsWith("hostile") || text.length > 50 * LONG ? 10 : 300;
  const step = Math.ceil(text.length / steps);
  test(`${name}: as each beginning at once`, () => {
    // Definitions that come later change what was drawn before only at the end.
    if (/^ {0,3}\[[^\]]+\]:/m.test(text) || text.length > LONG || name.startsWith("mix")) return;
    const element = document.createElement("div");
    const stream = new MarkdownStream(element);
    for (let end = 1; end < text.length; end += step) {
      const beginning = text.slice(0, end);
      stream.draw(beginning);
      const whole = document.createElement("div");
      new MarkdownStream(whole).draw(beginning);
      assert.deepEqual(blocksOf(element), blocksOf(whole), JSON.stringify(beginning));
    }
  });
  test(`${name}: by ${step}`, () => {
    const { element, stream } = grow(text, step);
    stream.finish(text);
    assert.deepEqual(blocksOf(element), wanted);
  });
}
