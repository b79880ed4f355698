/**
 * Renders Markdown that grows, in an element of its own.
 *
 * A block is settled once the next one has begun on a complete line: from then on it is neither
 * parsed nor touched. Only what follows is rendered again and merged into the page; of a list or a
 * table only the last entry, and of a long code block nothing: its text is appended.
 */

import { within } from "../page/elements.js";
import { OpenFence } from "./fence.js";
import { drawFormulas, undrawFormulas } from "./finish/formulas.js";
import { morph } from "./morph.js";
import { elementOf, nodesOf } from "./nodes.js";
import { MAX_CHARS, parse } from "./parser.js";
import { entriesOf, lineOf, OpenRows } from "./rows.js";
import { presentable, withFormula } from "./tail.js";

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
      this.#drawLong(text);
      return;
    }
    // A carriage return may be half of a line's end.
    const added = text.slice(this.#seen).replace(/\r$/, "");
    this.#open += added.replaceAll("\0", "\uFFFD").replace(/\r\n?/g, "\n");
    this.#seen += added.length;
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
    const present = childrenOf(this.element);
    const count = this.#settled.length;
    for (const [index, block] of whole.entries()) {
      this.#finishBlock(block, present[index], index, index < count);
    }
    this.#settled.length = whole.length;
    while (this.element.children.length > whole.length) this.element.lastElementChild?.remove();
  }

  /** Draw the formulas in the blocks that are not settled, except one that may not be complete. */
  drawFormulas() {
    const open = childrenOf(this.element).slice(this.#settled.length);
    for (const block of open) drawFormulas(block, true);
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
   * Parse `text` into blocks; `last` is the index of the last one that began on a complete line, not
   * counting what may become a formula.
   * @param {string} text
   */
  #read(text) {
    const lines = text.split("\n");
    const formula = withFormula(text);
    const blocks = blocksOf(parse(formula || presentable(text), structuredClone(this.#known)));
    const isUnsure = formula || endsInFormula(blocks, lines.length);
    const sure = isUnsure ? blocks.slice(0, -1) : blocks;
    return { lines, blocks, last: sure.findLastIndex(({ start }) => start < lines.length - 1) };
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
   * What has been rendered stays; the rest is text, which grows without being parsed.
   * @param {string} text
   */
  #drawLong(text) {
    if (this.element.lastElementChild?.className !== "overlong") {
      const beginning = beginningOf(text);
      this.finish(beginning);
      this.#seen = beginning.length;
      const block = document.createElement("pre");
      block.className = "overlong";
      this.element.append(block);
    }
    this.element.lastElementChild?.append(text.slice(this.#seen));
    this.#seen = text.length;
  }

  /**
   * Leave a block that is right; morph one that is nearly right, to keep the selection in it.
   * @param {HTMLElement} block
   * @param {HTMLElement | undefined} present
   * @param {number} index
   * @param {boolean} isSettled
   */
  #finishBlock(block, present, index, isSettled) {
    const html = block.outerHTML;
    if (html === this.#settled[index]) return;
    this.#settled[index] = html;
    if (!present) this.element.append(block);
    else if (isSettled) present.replaceWith(block);
    else if (htmlOf(present) !== html) morph(present, block);
    this.onSettled(present?.parentNode === this.element ? present : block);
  }
}

/**
 * The block as the server renders it: here long code may be split into elements, and formulas may
 * be drawn.
 * @param {HTMLElement} block
 */
function htmlOf(block) {
  if (!block.matches("[data-tex]") && !block.querySelector(".piece, [data-tex]")) {
    return block.outerHTML;
  }
  const whole = /** @type {HTMLElement} */ (block.cloneNode(true));
  undrawFormulas(whole);
  if (whole.querySelector(".piece")) whole.firstElementChild?.replaceChildren(whole.textContent);
  return whole.outerHTML;
}

/**
 * @param {ParentNode} element
 * @returns {HTMLElement[]}
 */
function childrenOf({ children }) {
  return /** @type {HTMLElement[]} */ ([...children]);
}

/**
 * What is rendered of a text: as many whole lines as are allowed.
 * @param {string} text
 */
function beginningOf(text) {
  if (text.length <= MAX_CHARS) return text;
  const beginning = text.slice(0, MAX_CHARS).replace(/[\uD800-\uDBFF]$/, "");
  return beginning.slice(0, beginning.lastIndexOf("\n") + 1) || beginning;
}

/** @param {string} text */
function wholeOf(text) {
  const beginning = beginningOf(text);
  const nodes = nodesOf(parse(beginning));
  if (beginning.length === text.length) return nodes;
  const block = document.createElement("pre");
  block.append(text.slice(beginning.length));
  nodes.append(block);
  return nodes;
}

/**
 * Whether the last line is that of a formula's end, after which text would make it none.
 * @param {Block[]} blocks
 * @param {number} count
 */
function endsInFormula(blocks, count) {
  const [token] = blocks.at(-1)?.tokens ?? [];
  return token?.type === "math" && (token.map?.[1] ?? 0) >= count;
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
