/** What GitHub has besides: tasks, alerts, footnotes; and line breaks in cells, and directions. */

import footnotes from "../../../vendor/markdown-it-footnote.js";

const TASK = /^\[([ xX])\](?=[ \t])/;
const ALERT = /^\[!(note|tip|important|warning|caution)\][ \t]*$/i;
const BREAK = /<br[ \t]*\/?>/i;
const DIRECTED = new Set(["blockquote", "ol", "table", "ul"]);

/**
 * Add the rules.
 * @param {Parser} parser
 */
export function addExtensions(parser) {
  footnotes(parser);
  parser.inline.ruler.disable("footnote_inline");
  parser.core.ruler.disable("footnote_tail");
  // Escaped characters are still apart from the text there.
  for (const rule of [markTasks, markAlerts, breakCells]) {
    parser.core.ruler.before("text_join", rule.name, rule);
  }
  parser.core.ruler.push("show_notes", showNotes);
  parser.core.ruler.push("direct", direct);
}

/**
 * Make a checkbox, with the text as its label, of `[ ]` or `[x]` at the start of an item.
 * @param {CoreState} at
 */
function markTasks({ tokens, Token }) {
  tokens.forEach((item, index) => {
    const inline = tokens[index + 2];
    const words = firstText(item, "list_item_open", inline);
    const [mark, done] = TASK.exec(words?.content ?? "") ?? [];
    if (!words || !mark) return;
    words.content = words.content.slice(mark.length);
    const box = new Token("task", "input", 0);
    box.attrs = [
      ["type", "checkbox"],
      ["disabled", ""],
    ];
    if (done !== " ") box.attrs.push(["checked", ""]);
    const opening = new Token("label_open", "label", 1);
    const closing = new Token("label_close", "label", -1);
    inline.children = [opening, box, ...(inline.children ?? []), closing];
    item.attrSet("class", "task");
  });
}

/**
 * The text that a block of this kind begins with, if it begins with a paragraph.
 * @param {Token} block
 * @param {string} kind
 * @param {Token | undefined} inline
 */
function firstText(block, kind, inline) {
  const isFirst = block.type === kind && inline?.type === "inline";
  const [first] = (isFirst && inline.level === block.level + 2 && inline.children) || [];
  return first?.type === "text" ? first : null;
}

/**
 * Make an alert of a quotation whose first line is `[!NOTE]`, or another of the five.
 * @param {CoreState} at
 */
function markAlerts({ tokens, Token }) {
  for (let index = tokens.length - 3; index >= 0; index -= 1) {
    const [quote, , inline] = tokens.slice(index, index + 3);
    const words = firstText(quote, "blockquote_open", inline);
    const [, name] = ALERT.exec(words?.content ?? "") ?? [];
    const next = inline.children?.[1];
    if (!words || !name || (next && next.type !== "softbreak")) continue;
    quote.attrSet("class", `alert alert-${name.toLowerCase()}`);
    words.content = name[0].toUpperCase() + name.slice(1).toLowerCase();
    tokens.splice(index + 1, 3, ...titleOf(tokens.slice(index + 1, index + 4), Token));
  }
}

/**
 * The tokens of the title, and of a paragraph of the lines below it.
 * @param {Token[]} paragraph
 * @param {CoreState["Token"]} Token
 */
function titleOf([opening, inline, closing], Token) {
  const children = inline.children ?? [];
  const title = Object.assign(new Token("paragraph_open", "p", 1), opening);
  title.attrs = [["class", "alert-title"]];
  const words = Object.assign(new Token("inline", "", 0), inline);
  words.children = children.slice(0, 1);
  inline.children = children.slice(2);
  const rest = inline.children.length ? [opening, inline, closing] : [];
  return [title, words, closing, ...rest];
}

/**
 * Make line breaks of `<br>` in the cells of tables, which have no other way to write one.
 * @param {CoreState} at
 */
function breakCells({ tokens, Token }) {
  tokens.forEach(({ type }, index) => {
    if (type !== "td_open" && type !== "th_open") return;
    const inline = tokens[index + 1];
    inline.children = (inline.children ?? []).flatMap((child) => breakText(child, Token));
  });
}

/**
 * @param {Token} token
 * @param {CoreState["Token"]} Token
 */
function breakText(token, Token) {
  if (token.type !== "text" || !BREAK.test(token.content)) return [token];
  const pieces = token.content.split(BREAK).flatMap((content) => {
    const text = Object.assign(new Token("text", "", 0), { content });
    return [new Token("hardbreak", "br", 0), text];
  });
  return pieces.slice(1);
}

/**
 * Show footnotes where they are defined, with their label; references as the label alone.
 *
 * There are no ids, because a page shows many replies: `blocks.js` finds one by the other.
 * @param {CoreState} state
 */
function showNotes(state) {
  const { Token } = state;
  let end = 0;
  state.tokens = state.tokens.flatMap((token) => {
    if (token.type.startsWith("footnote_reference")) {
      token.tag = "div";
      // The library does not tell the line, which is not before the end of the block before.
      if (token.nesting === 1) token.map ??= [end, end];
    }
    if (token.level === 0 && token.map) end = token.map[1];
    token.children &&= token.children.flatMap((child) =>
      child.type === "footnote_ref" ? labelOf(child, Token, "footnote-ref") : [child],
    );
    if (token.type !== "footnote_reference_open") return [token];
    token.attrs = [
      ["class", "footnote"],
      ["data-footnote", String(token.meta?.label)],
    ];
    const label = new Token("inline", "", 0);
    label.level = token.level + 1;
    label.children = labelOf(token, Token, "");
    return [token, label];
  });
}

/**
 * @param {Token} token
 * @param {CoreState["Token"]} Token
 * @param {string} className
 */
function labelOf({ meta }, Token, className) {
  const label = String(meta?.label);
  const opening = new Token("sup_open", "sup", 1);
  if (className) {
    opening.attrs = [
      ["class", className],
      ["data-footnote", label],
    ];
  }
  const text = Object.assign(new Token("text", "", 0), { content: label });
  return [opening, text, new Token("sup_close", "sup", -1)];
}

/**
 * Let lists, quotations and tables begin on the side from which their text is read.
 * @param {CoreState} at
 */
function direct({ tokens }) {
  for (const token of tokens) {
    if (token.nesting === 1 && DIRECTED.has(token.tag)) token.attrSet("dir", "auto");
  }
}
