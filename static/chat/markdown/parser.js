/**
 * Markdown by the rules of conversations/sessions/rendering.py: both give the same result for a
 * text.
 */

import vendored from "../../vendor/markdown-it.js";

/** Longer texts are shown as plain text. */
export const MAX_CHARS = 131_072;
const PAGE_HEADINGS = 2;

const MarkdownIt = /** @type {MarkdownIt} */ (/** @type {unknown} */ (vendored));
const parser = MarkdownIt("commonmark", { html: false, breaks: true });
parser.enable(["table", "strikethrough"]);
for (const rule of [lowerHeadings, linkImages, alignCells, nameHosts]) {
  parser.core.ruler.push(rule.name, rule);
}

/** Chinese, Japanese and Korean characters, with their punctuation. */
const CJK =
  /[\u1100-\u11ff\u2e80-\u303e\u3041-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\u{20000}-\u{3ffff}]/u;
const { isMdAsciiPunct, isPunctChar, isWhiteSpace } = parser.utils;

/**
 * Emphasis next to such characters, which are written without spaces: there a mark may open and
 * close as between letters, whatever punctuation is next to it.
 */
parser.inline.State = class extends parser.inline.State {
  /**
   * @param {number} start
   * @param {boolean} canSplitWord
   */
  scanDelims(start, canSplitWord) {
    const scanned = super.scanDelims(start, canSplitWord);
    const end = start + scanned.length;
    const before = start > 0 ? charBefore(this.src, start) : " ";
    const after = end < this.posMax ? charAt(this.src, end) : " ";
    if (!CJK.test(before) && !CJK.test(after)) return scanned;
    const opens =
      !isSpace(after) && (!parts(after) || isSpace(before) || parts(before) || CJK.test(before));
    const closes =
      !isSpace(before) && (!parts(before) || isSpace(after) || parts(after) || CJK.test(after));
    return {
      can_open: opens && (canSplitWord || !closes || isPunctuation(before)),
      can_close: closes && (canSplitWord || !opens || isPunctuation(after)),
      length: scanned.length,
    };
  }
};

/**
 * @param {string} text
 * @param {number} place
 */
function charAt(text, place) {
  return String.fromCodePoint(text.codePointAt(place) ?? 0);
}

/** @param {string} char */
function codeOf(char) {
  return char.codePointAt(0) ?? 0;
}

/**
 * @param {string} text
 * @param {number} place
 */
function charBefore(text, place) {
  const isPair = place > 1 && /[\ud800-\udbff][\udc00-\udfff]/.test(text.slice(place - 2, place));
  return isPair ? text.slice(place - 2, place) : text[place - 1];
}

/** @param {string} char */
function isSpace(char) {
  return isWhiteSpace(codeOf(char));
}

/** @param {string} char */
function isPunctuation(char) {
  return isMdAsciiPunct(codeOf(char)) || isPunctChar(char);
}

/**
 * Whether it is punctuation, other than that of Chinese, Japanese or Korean.
 * @param {string} char
 */
function parts(char) {
  return isPunctuation(char) && !CJK.test(char);
}

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
function linkImages({ tokens, Token }) {
  for (const block of tokens) {
    let isInLink = false;
    block.children = (block.children ?? []).flatMap((token) => {
      if (token.type === "link_open" || token.type === "link_close") {
        isInLink = token.type === "link_open";
      }
      return token.type === "image" ? imageLink(Token, token, isInLink) : [token];
    });
  }
}

/**
 * A link to the picture; inside another link only its text.
 * @param {CoreState["Token"]} Token
 * @param {Token} image
 * @param {boolean} isInLink
 */
function imageLink(Token, image, isInLink) {
  const address = String(image.attrGet("src") ?? "");
  const words = new Token("text", "", 0);
  words.content = image.content || address;
  if (isInLink) return [words];
  const opening = new Token("link_open", "a", 1);
  opening.attrs = [["href", address]];
  return [opening, words, new Token("link_close", "a", -1)];
}

/** @param {CoreState} at */
function alignCells({ tokens }) {
  for (const token of tokens) {
    const style = token.attrGet("style");
    if (style) token.attrs = [["align", String(style).replace("text-align:", "")]];
  }
}

/** @param {CoreState} at */
function nameHosts({ tokens }) {
  for (const block of tokens) markLinks(block.children ?? []);
}

/**
 * Give each closing link token the host that the link's text does not show.
 * @param {Token[]} tokens
 */
function markLinks(tokens) {
  let host = "";
  let words = "";
  for (const token of tokens) {
    if (token.type === "link_open") {
      host = hostOf(String(token.attrGet("href") ?? ""));
      words = "";
    } else if (token.type === "link_close") {
      const isShown = hostOf(words) === host && !words.includes(" ");
      token.meta = { host: isShown ? "" : host };
    } else {
      words += token.content;
    }
  }
}

/** @param {string} href */
function hostOf(href) {
  const [, authority = ""] = /^(?:[a-z][a-z0-9+.-]*:)?\/\/([^/?#]*)/i.exec(href) ?? [];
  const host = authority.slice(authority.lastIndexOf("@") + 1);
  const [, bracketed] = /^\[([^\]]*)/.exec(host) ?? [];
  return (bracketed ?? host.split(":")[0]).toLowerCase();
}
