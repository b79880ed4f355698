/**
 * Markdown by the rules of conversations/sessions/markdown.py: both give the same result for a
 * text.
 */

import { allowEmphasisInCjk } from "./rules/emphasis.js";
import { addExtensions } from "./rules/extensions.js";
import { MarkdownIt } from "./rules/library.js";
import { linkAddresses, linkImages, nameHosts } from "./rules/links.js";
import { addMath } from "./rules/math.js";

/** The rest of a longer text is shown as it is written. */
export const MAX_CHARS = 131_072;
const PAGE_HEADINGS = 2;

const parser = MarkdownIt("commonmark", { html: false, breaks: true });
parser.enable(["table", "strikethrough"]);
allowEmphasisInCjk(parser);
linkAddresses(parser);
addMath(parser);
for (const rule of [lowerHeadings, linkImages, alignCells, nameHosts]) {
  parser.core.ruler.push(rule.name, rule);
}
addExtensions(parser);

/**
 * The tokens of a text; `env` holds what the text before it defined, and is extended.
 * @param {string} text
 * @param {Known} [env]
 */
export function parse(text, env = {}) {
  return parser.parse(text, /** @type {MarkdownEnv} */ (env));
}

/** @param {CoreState} at */
function lowerHeadings({ tokens, env }) {
  const known = /** @type {Known} */ (env);
  known.headings ??= [];
  const within = known.headings;
  for (const token of tokens) {
    if (token.type === "heading_open") {
      const level = Number(token.tag[1]);
      while ((within.at(-1) ?? 0) >= level) within.pop();
      within.push(level);
    }
    if (token.type === "heading_open" || token.type === "heading_close") {
      token.tag = `h${Math.min(6, PAGE_HEADINGS + within.length)}`;
    }
  }
}

/** @param {CoreState} at */
function alignCells({ tokens }) {
  for (const token of tokens) {
    const style = token.attrGet("style");
    if (style) token.attrs = [["align", String(style).replace("text-align:", "")]];
  }
}
