/**
 * A list or a table that is still open: its finished entries stay as they are.
 *
 * Only what follows is parsed and shown anew, from the line of the last entry on: a list may
 * begin with any entry, and a row of a table is one below the table's head.
 */

import { morphChildren } from "./morph.js";
import { nodesOf } from "./markdown_nodes.js";

/** Above the rows: names, and the line below them. */
const HEAD_LINES = 2;
/** Each entry is a node behind a line break. */
const NODES_PER_ENTRY = 2;

export class OpenRows {
  #container;
  #isLoose;
  #kept = 0;

  /** `element` shows `tokens`, which `lines` were parsed into. */
  constructor(element, tokens, lines) {
    const [{ tag, map }] = tokens;
    this.head = tag === "table" ? `${lines.slice(map[0], map[0] + HEAD_LINES).join("\n")}\n` : "";
    this.text = this.head;
    this.#container = containerOf(element);
    this.#isLoose = isLoose(tokens, lines);
  }

  /** Whether what stays is right beside `tokens`: one gap makes all entries of a list paragraphs. */
  fits(tokens, lines) {
    return this.#isLoose || !isLoose(tokens, lines);
  }

  /** Show `tokens` behind what stays. */
  show(tokens) {
    if (this.#isLoose) for (const token of paragraphsOf(tokens)) token.hidden = false;
    morphChildren(this.#container, containerOf(nodesOf(tokens).firstChild), this.#kept);
  }

  /** What is before the last entry that has begun on a whole line stays; the number of that line. */
  settle(tokens, lines) {
    const starts = entriesOf(tokens).filter((start) => start < lines.length - 1);
    this.#kept += NODES_PER_ENTRY * (starts.length - 1);
    this.text += lines.slice(starts[0], starts.at(-1)).map((line) => `${line}\n`).join("");
    return starts.at(-1);
  }
}

/** The lines that entries begin on; none in a block that has no entries. */
export function entriesOf(tokens) {
  if (tokens[0].tag === "table") {
    const first = tokens[0].map[0] + HEAD_LINES;
    const rows = tokens.filter(({ type }) => type === "tr_open").slice(1);
    return rows.map((_, index) => first + index);
  }
  const items = tokens.filter(({ type, level }) => type === "list_item_open" && level === 1);
  return items.map(({ map }) => map[0]);
}

function containerOf(element) {
  return element.tagName === "TABLE" ? element.tBodies[0] : element;
}

/** By its paragraphs, or a gap before an entry: entries may be without paragraphs of their own. */
function isLoose(tokens, lines) {
  const later = entriesOf(tokens).slice(1);
  const hasGap = later.some((start) => !lines[start - 1].trim());
  return hasGap || paragraphsOf(tokens).some(({ hidden }) => !hidden);
}

/** Those of the entries themselves, not of lists within them. */
function paragraphsOf(tokens) {
  return tokens.filter(({ tag, level }) => tag === "p" && level === 2);
}
