/**
 * Markdown that grows, in an element of its own.
 *
 * A block is settled once the next one has begun on a whole line: from then on it is neither
 * parsed nor touched. Only what follows is made anew, and brought in line with what is shown; of
 * a list or a table only its last entry, and a long block of code not even that: its text is
 * appended.
 */

import { OpenFence } from "./markdown_fence.js";
import { nodesOf } from "./markdown_nodes.js";
import { entriesOf, OpenRows } from "./markdown_rows.js";
import { presentable } from "./markdown_tail.js";
import { MAX_CHARS, parse } from "./markdown.js";
import { morph } from "./morph.js";

export class MarkdownStream {
  #seen = 0;
  #open = "";
  #known = { references: {}, headings: [] };
  #settled = [];
  #fence = null;
  #rows = null;

  /** `onSettled(block)` is told of every block that stays as it is. */
  constructor(element, onSettled = () => {}) {
    this.element = element;
    this.onSettled = onSettled;
  }

  /** Show `text`, which goes on from what was shown before. */
  draw(text) {
    if (text.length > MAX_CHARS) {
      this.#drawPlain(text);
      return;
    }
    this.#open += text.slice(this.#seen).replaceAll("\0", "\uFFFD");
    this.#seen = text.length;
    if (this.#fence) this.#growFence();
    else if (this.#rows) this.#growRows();
    else this.#drawBlocks();
  }

  /** Show the whole text for good: `blocks` are its nodes, those of `text` by default. */
  finish(text, blocks = wholeOf(text)) {
    const whole = [...blocks.children];
    const count = this.#settled.length;
    whole.forEach((block, index) => this.#finishBlock(block, index, index < count));
    this.#settled.length = whole.length;
    while (this.element.children.length > whole.length) this.element.lastElementChild.remove();
  }

  #drawBlocks() {
    const { lines, blocks, last } = this.#read(this.#open);
    const opening = blocks[last]?.tokens ?? [];
    const isFence = opening[0]?.type === "fence";
    if (last > 0 || isFence) this.#settleLines(lines, blocks[last].start);
    if (isFence) {
      this.#beginFence(opening);
    } else {
      this.#show(blocks.slice(Math.max(0, last)).map(elementOf));
      if (last >= 0 && entriesOf(opening).length > 1) this.#beginRows();
    }
  }

  /** `text` in blocks, and the place of the `last` one that has begun on a whole line. */
  #read(text) {
    const lines = text.split("\n");
    const blocks = blocksOf(parse(presentable(text), structuredClone(this.#known)));
    return { lines, blocks, last: blocks.findLastIndex(({ start }) => start < lines.length - 1) };
  }

  /** The first `count` lines hold whole blocks, and what later ones refer to. */
  #settleLines(lines, count) {
    const text = lines.slice(0, count).join("\n");
    const nodes = nodesOf(parse(text, this.#known));
    this.#show([...nodes.children]);
    while (this.#settled.length < this.element.children.length) {
      this.#settle(this.element.children[this.#settled.length]);
    }
    this.#open = lines.slice(count).join("\n");
  }

  #settle(block) {
    this.#settled.push(htmlOf(block));
    this.onSettled(block);
  }

  /** Show these blocks behind the settled ones, or from the place `first` on, and nothing else. */
  #show(blocks, first = this.#settled.length) {
    blocks.forEach((block, index) => {
      const present = this.element.children[first + index];
      if (present) morph(present, block);
      else this.element.append(block);
    });
    const count = first + blocks.length;
    while (this.element.children.length > count) this.element.lastElementChild.remove();
  }

  #beginFence(tokens) {
    const [line] = this.#open.split("\n", 1);
    const block = nodesOf(tokens).firstChild;
    this.element.children[this.#settled.length]?.remove();
    this.#show([block]);
    this.#open = this.#open.slice(line.length + 1);
    this.#fence = new OpenFence(line, block.firstChild);
    this.#growFence();
  }

  #growFence() {
    this.#open = this.#fence.take(this.#open);
    if (!this.#fence.isClosed) return;
    this.#fence = null;
    this.#settle(this.element.lastElementChild);
    if (this.#open) this.#drawBlocks();
  }

  #beginRows() {
    const { lines, blocks: [{ tokens }] } = this.#read(this.#open);
    this.#rows = new OpenRows(this.element.children[this.#settled.length], tokens, lines);
    this.#settleRows(tokens, lines);
  }

  #growRows() {
    const { lines, blocks, last } = this.#read(this.#rows.head + this.#open);
    const [{ tokens }, next] = blocks;
    if (!this.#rows.fits(tokens, lines)) {
      this.#open = this.#rows.text + this.#open;
      this.#rows = null;
      this.#drawBlocks();
      return;
    }
    this.#rows.show(tokens);
    if (last > 0) {
      this.#endRows(lines, next.start);
    } else {
      this.#show(blocks.slice(1).map(elementOf), this.#settled.length + 1);
      this.#settleRows(tokens, lines);
    }
  }

  #settleRows(tokens, lines) {
    this.#open = this.#learn(lines, this.#rows.settle(tokens, lines));
  }

  #endRows(lines, count) {
    this.#open = this.#learn(lines, count);
    this.#rows = null;
    this.#settle(this.element.children[this.#settled.length]);
    this.#drawBlocks();
  }

  /** Keep what the first `count` lines tell of later ones; the text of those. */
  #learn(lines, count) {
    parse(lines.slice(0, count).join("\n"), this.#known);
    return lines.slice(count).join("\n");
  }

  #drawPlain(text) {
    if (this.element.firstElementChild?.className !== "overlong") {
      this.#settled = [];
      this.#seen = 0;
      const block = document.createElement("pre");
      block.className = "overlong";
      this.element.replaceChildren(block);
    }
    this.element.firstElementChild.append(text.slice(this.#seen));
    this.#seen = text.length;
  }

  /** What is right already stays; so does the selection in what is nearly so. */
  #finishBlock(block, index, isSettled) {
    const html = block.outerHTML;
    if (html === this.#settled[index]) return;
    this.#settled[index] = html;
    const present = this.element.children[index];
    if (!present) this.element.append(block);
    else if (isSettled) present.replaceWith(block);
    else if (htmlOf(present) !== html) morph(present, block);
    this.onSettled(this.element.children[index]);
  }
}

/** As the server writes it: a long block of code may stand in pieces here. */
function htmlOf(block) {
  if (!block.querySelector(".piece")) return block.outerHTML;
  const whole = block.cloneNode(true);
  whole.firstChild.replaceChildren(whole.textContent);
  return whole.outerHTML;
}

function elementOf({ tokens }) {
  return nodesOf(tokens).firstChild;
}

function wholeOf(text) {
  if (text.length <= MAX_CHARS) return nodesOf(parse(text));
  const fragment = document.createDocumentFragment();
  const block = document.createElement("pre");
  block.append(text);
  fragment.append(block);
  return fragment;
}

/** The tokens of each outermost block, and the line that it begins on. */
function blocksOf(tokens) {
  const blocks = [];
  for (const token of tokens) {
    if (token.level === 0 && token.nesting >= 0) blocks.push({ start: token.map[0], tokens: [] });
    blocks.at(-1).tokens.push(token);
  }
  return blocks;
}
