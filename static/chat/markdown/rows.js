/**
 * A list or a table that is still open: its finished entries stay as they are.
 *
 * Only what follows is parsed and shown anew, from the line of the last entry on: a list may
 * begin with any entry, and a row of a table is one below the table's head.
 */

import { morphChildren } from "./morph.js";
import { elementOf } from "./nodes.js";

/** Above the rows: names, and the line below them. */
const HEAD_LINES = 2;
/** Each entry is a node behind a line break. */
const NODES_PER_ENTRY = 2;

export class OpenRows {
  #container;
  #isLoose;
  #kept = 0;

  /**
   * `element` shows `tokens`, which `lines` were parsed into.
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
   * Whether what stays is right beside `tokens`: one gap makes all entries of a list paragraphs.
   * @param {Token[]} tokens
   * @param {string[]} lines
   */
  fits(tokens, lines) {
    return this.#isLoose || !isLoose(tokens, lines);
  }

  /**
   * Show `tokens` behind what stays.
   * @param {Token[]} tokens
   */
  show(tokens) {
    if (this.#isLoose) for (const token of paragraphsOf(tokens)) token.hidden = false;
    morphChildren(this.#container, containerOf(elementOf(tokens)), this.#kept);
  }

  /**
   * What is before the last entry that has begun on a whole line stays; the number of that line.
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
 * The lines that entries begin on; none in a block that has no entries.
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
  return element instanceof HTMLTableElement ? element.tBodies[0] : element;
}

/**
 * By its paragraphs, or a gap before an entry: entries may be without paragraphs of their own.
 * @param {Token[]} tokens
 * @param {string[]} lines
 */
function isLoose(tokens, lines) {
  const later = entriesOf(tokens).slice(1);
  const hasGap = later.some((start) => !lines[start - 1].trim());
  return hasGap || paragraphsOf(tokens).some(({ hidden }) => !hidden);
}

/**
 * Those of the entries themselves, not of lists within them.
 * @param {Token[]} tokens
 */
function paragraphsOf(tokens) {
  return tokens.filter(({ tag, level }) => tag === "p" && level === 2);
}

/**
 * The line that a block begins on.
 * @param {Token} token
 */
export function lineOf({ map }) {
  return map?.[0] ?? 0;
}
