/**
 * A list or a table that is still open: its finished entries are not drawn again.
 *
 * Only the text from the line of the last entry on is parsed and drawn again: a list may begin with
 * any entry, and a row of a table is parsed below the table's head.
 */

import { morphChildren } from "./morph.js";
import { elementOf } from "./nodes.js";

/** The head of a table: names, and the line below them. */
const HEAD_LINES = 2;
/** Each entry is a node after a line break. */
const NODES_PER_ENTRY = 2;

export class OpenRows {
  #container;
  #isLoose;
  #kept = 0;

  /**
   * `element` shows `tokens`, parsed from `lines`.
   * @param {HTMLElement} element
   * @param {Token[]} tokens
   * @param {string[]} lines
   */
  constructor(element, tokens, lines) {
    const [{ tag }] = tokens;
    const start = lineOf(tokens[0]);
    this.head = tag === "table" ? `${lines.slice(start, start + HEAD_LINES).join("\n")}\n` : "";
    this.text = this.head;
    this.#container = containerOf(element);
    this.#isLoose = isLoose(tokens, lines);
  }

  /**
   * Whether the finished entries are still right: a gap between entries turns all entries of a list
   * into paragraphs.
   * @param {Token[]} tokens
   * @param {string[]} lines
   */
  fits(tokens, lines) {
    return this.#isLoose || !isLoose(tokens, lines);
  }

  /**
   * Show `tokens` after the finished entries.
   * @param {Token[]} tokens
   */
  show(tokens) {
    if (this.#isLoose) for (const token of paragraphsOf(tokens)) token.hidden = false;
    morphChildren(this.#container, containerOf(elementOf(tokens)), this.#kept);
  }

  /**
   * Count all entries before the last complete line's as finished; returns the line at which the
   * next entry begins.
   * @param {Token[]} tokens
   * @param {string[]} lines
   */
  settle(tokens, lines) {
    const starts = entriesOf(tokens).filter((start) => start < lines.length - 1);
    this.#kept += NODES_PER_ENTRY * (starts.length - 1);
    this.text += lines
      .slice(starts[0], starts.at(-1))
      .map((line) => `${line}\n`)
      .join("");
    return starts.at(-1) ?? 0;
  }
}

/**
 * The lines at which entries begin; none in a block without entries.
 * @param {Token[]} tokens
 * @returns {number[]}
 */
export function entriesOf(tokens) {
  if (tokens[0].tag === "table") {
    const first = lineOf(tokens[0]) + HEAD_LINES;
    const rows = tokens.filter(({ type }) => type === "tr_open").slice(1);
    return rows.map((_, index) => first + index);
  }
  const items = tokens.filter(({ type, level }) => type === "list_item_open" && level === 1);
  return items.map(lineOf);
}

/** @param {HTMLElement} element */
function containerOf(element) {
  return element.querySelector(":scope > tbody") ?? element;
}

/**
 * Whether entries are paragraphs: judged by their paragraphs, or by a gap before an entry, since
 * entries may contain no paragraph of their own.
 * @param {Token[]} tokens
 * @param {string[]} lines
 */
function isLoose(tokens, lines) {
  const later = entriesOf(tokens).slice(1);
  const hasGap = later.some((start) => !lines[start - 1].trim());
  return hasGap || paragraphsOf(tokens).some(({ hidden }) => !hidden);
}

/**
 * The paragraphs of the entries themselves, not those of nested lists.
 * @param {Token[]} tokens
 */
function paragraphsOf(tokens) {
  return tokens.filter(({ tag, level }) => tag === "p" && level === 2);
}

/**
 * The line at which a block begins.
 * @param {Token} token
 */
export function lineOf({ map }) {
  return map?.[0] ?? 0;
}
