/**
 * Renders Markdown that grows, in an element of its own.
 *
 * A block is settled once the next one has begun on a complete line: from then on it is neither
 * parsed nor touched. Only what follows is rendered again and merged into the page; of a list or a
 * table only the last entry, and of a long code block nothing: its text is appended.
 */

import { within } from "../page/elements.js";
import { OpenFence } from "./fence.js";
import { morph } from "./morph.js";
import { elementOf, nodesOf } from "./nodes.js";
import { MAX_CHARS, parse } from "./parser.js";
import { entriesOf, lineOf, OpenRows } from "./rows.js";
import { presentable } from "./tail.js";

export class MarkdownStream {
  #seen = 0;
  #open = "";
  /** @type {Known} */
  #known = { references: {}, headings: [] };
  /** @type {string[]} */
  #settled = [];
  /** @type {OpenFence | null} */
  #fence = null;
  /** @type {OpenRows | null} */
  #rows = null;
  /** @type {HTMLElement | null} */
  #rest = null;

  /**
   * `onSettled(block)` is called for each block that is settled.
   * @param {HTMLElement} element
   * @param {(block: HTMLElement) => void} [onSettled]
   */
  constructor(element, onSettled = () => {}) {
    this.element = element;
    this.onSettled = onSettled;
  }

  /**
   * Show `text`, which continues what was shown before.
   * @param {string} text
   */
  draw(text) {
    if (text.length > MAX_CHARS) {
      this.#drawRest(text);
      return;
    }
    this.#open += text.slice(this.#seen).replaceAll("\0", "\uFFFD");
    this.#seen = text.length;
    if (this.#fence) this.#growFence(this.#fence);
    else if (this.#rows) this.#growRows(this.#rows);
    else this.#drawBlocks();
  }

  /**
   * Show the whole text for good: `blocks` are its nodes, by default those of `text`.
   * @param {string} text
   * @param {ParentNode} [blocks]
   */
  finish(text, blocks = wholeOf(text)) {
    const whole = childrenOf(blocks);
    const count = this.#settled.length;
    for (const [index, block] of whole.entries()) this.#finishBlock(block, index, index < count);
    this.#settled.length = whole.length;
    while (this.element.children.length > whole.length) this.element.lastElementChild?.remove();
  }

  #drawBlocks() {
    const { lines, blocks, last } = this.#read(this.#open);
    /** @type {Token[]} */
    const opening = blocks[last]?.tokens ?? [];
    const isFence = opening[0]?.type === "fence";
    if (last > 0 || isFence) this.#settleLines(lines, blocks[last].start);
    if (isFence) {
      this.#beginFence(opening);
    } else {
      this.#show(blocks.slice(Math.max(0, last)).map(({ tokens }) => elementOf(tokens)));
      if (last >= 0 && entriesOf(opening).length > 1) this.#beginRows();
    }
  }

  /**
   * Parse `text` into blocks; `last` is the index of the last one that began on a complete line.
   * @param {string} text
   */
  #read(text) {
    const lines = text.split("\n");
    const blocks = blocksOf(parse(presentable(text), structuredClone(this.#known)));
    return { lines, blocks, last: blocks.findLastIndex(({ start }) => start < lines.length - 1) };
  }

  /**
   * Settle the blocks of the first `count` lines, and keep the definitions that later ones refer
   * to.
   * @param {string[]} lines
   * @param {number} count
   */
  #settleLines(lines, count) {
    const text = lines.slice(0, count).join("\n");
    const nodes = nodesOf(parse(text, this.#known));
    this.#show(childrenOf(nodes));
    for (const block of childrenOf(this.element).slice(this.#settled.length)) this.#settle(block);
    this.#open = lines.slice(count).join("\n");
  }

  /** @param {HTMLElement} block */
  #settle(block) {
    this.#settled.push(htmlOf(block));
    this.onSettled(block);
  }

  /**
   * Show exactly these blocks after the settled ones, or from index `first` on.
   * @param {HTMLElement[]} blocks
   * @param {number} [first]
   */
  #show(blocks, first = this.#settled.length) {
    blocks.forEach((block, index) => {
      const present = this.element.children[first + index];
      if (present) morph(present, block);
      else this.element.append(block);
    });
    const count = first + blocks.length;
    while (this.element.children.length > count) this.element.lastElementChild?.remove();
  }

  /** @param {Token[]} tokens */
  #beginFence(tokens) {
    const [line] = this.#open.split("\n", 1);
    const block = elementOf(tokens);
    this.element.children[this.#settled.length]?.remove();
    this.#show([block]);
    this.#open = this.#open.slice(line.length + 1);
    this.#fence = new OpenFence(line, within(block, "code"));
    this.#growFence(this.#fence);
  }

  /** @param {OpenFence} fence */
  #growFence(fence) {
    this.#open = fence.take(this.#open);
    if (!fence.isClosed) return;
    this.#fence = null;
    this.#settle(/** @type {HTMLElement} */ (this.element.lastElementChild));
    if (this.#open) this.#drawBlocks();
  }

  #beginRows() {
    const {
      lines,
      blocks: [{ tokens }],
    } = this.#read(this.#open);
    this.#rows = new OpenRows(childrenOf(this.element)[this.#settled.length], tokens, lines);
    this.#settleRows(this.#rows, tokens, lines);
  }

  /** @param {OpenRows} rows */
  #growRows(rows) {
    const { lines, blocks, last } = this.#read(rows.head + this.#open);
    const [{ tokens }, next] = blocks;
    if (!rows.fits(tokens, lines)) {
      this.#open = rows.text + this.#open;
      this.#rows = null;
      this.#drawBlocks();
      return;
    }
    rows.show(tokens);
    if (last > 0) {
      this.#endRows(lines, next.start);
    } else {
      this.#show(
        blocks.slice(1).map(({ tokens }) => elementOf(tokens)),
        this.#settled.length + 1,
      );
      this.#settleRows(rows, tokens, lines);
    }
  }

  /**
   * @param {OpenRows} rows
   * @param {Token[]} tokens
   * @param {string[]} lines
   */
  #settleRows(rows, tokens, lines) {
    this.#open = this.#learn(lines, rows.settle(tokens, lines));
  }

  /**
   * @param {string[]} lines
   * @param {number} count
   */
  #endRows(lines, count) {
    this.#open = this.#learn(lines, count);
    this.#rows = null;
    this.#settle(childrenOf(this.element)[this.#settled.length]);
    this.#drawBlocks();
  }

  /**
   * Keep the definitions of the first `count` lines; returns the text after them.
   * @param {string[]} lines
   * @param {number} count
   */
  #learn(lines, count) {
    parse(lines.slice(0, count).join("\n"), this.#known);
    return lines.slice(count).join("\n");
  }

  /**
   * Show what follows the formatted part of a very long text as it is typed.
   * @param {string} text
   */
  #drawRest(text) {
    if (!this.#rest) {
      const { head, rest } = splitText(text);
      this.finish(head);
      this.#rest = document.createElement("pre");
      this.element.append(this.#rest);
      this.#seen = text.length - rest.length;
    }
    this.#rest.append(text.slice(this.#seen));
    this.#seen = text.length;
  }

  /**
   * Leave a block that is right; morph one that is nearly right, to keep the selection in it.
   * @param {HTMLElement} block
   * @param {number} index
   * @param {boolean} isSettled
   */
  #finishBlock(block, index, isSettled) {
    const html = block.outerHTML;
    if (html === this.#settled[index]) return;
    this.#settled[index] = html;
    const present = childrenOf(this.element)[index];
    if (!present) this.element.append(block);
    else if (isSettled) present.replaceWith(block);
    else if (htmlOf(present) !== html) morph(present, block);
    this.onSettled(childrenOf(this.element)[index]);
  }
}

/**
 * The block as the server renders it: here long code may be split into elements.
 * @param {HTMLElement} block
 */
function htmlOf(block) {
  if (!block.querySelector(".piece")) return block.outerHTML;
  const whole = /** @type {HTMLElement} */ (block.cloneNode(true));
  whole.firstElementChild?.replaceChildren(whole.textContent);
  return whole.outerHTML;
}

/**
 * @param {ParentNode} element
 * @returns {HTMLElement[]}
 */
function childrenOf({ children }) {
  return /** @type {HTMLElement[]} */ ([...children]);
}

/** @param {string} text */
function wholeOf(text) {
  const { head, rest } = splitText(text);
  const nodes = nodesOf(parse(head));
  if (!rest) return nodes;
  const block = document.createElement("pre");
  block.append(rest);
  nodes.append(block);
  return nodes;
}

/**
 * The part of a text that is formatted and, of a very long one, the rest: from the last paragraph
 * or else line that begins within the limit.
 * @param {string} text
 */
function splitText(text) {
  if (text.length <= MAX_CHARS) return { head: text, rest: "" };
  const within = text.slice(0, MAX_CHARS);
  const end = 1 + (within.lastIndexOf("\n\n") + 1 || within.lastIndexOf("\n"));
  return { head: text.slice(0, end), rest: text.slice(end).replace(/^\n+/, "") };
}

/**
 * The tokens of each outermost block, and the line at which it begins.
 * @param {Token[]} tokens
 */
function blocksOf(tokens) {
  /** @type {Block[]} */
  const blocks = [];
  for (const token of tokens) {
    if (token.level === 0 && token.nesting >= 0) blocks.push({ start: lineOf(token), tokens: [] });
    blocks.at(-1)?.tokens.push(token);
  }
  return blocks;
}
