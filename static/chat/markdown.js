/** Markdown by the rules of conversations/rendering.py, so that both make the same of a text. */

import MarkdownIt from "../vendor/markdown-it.js";

/** Longer texts are shown as they are. */
export const MAX_CHARS = 131_072;
const PAGE_HEADINGS = 2;

const parser = MarkdownIt("commonmark", { html: false, breaks: true });
parser.enable(["table", "strikethrough"]);
for (const rule of [lowerHeadings, linkImages, alignCells, nameHosts]) {
  parser.core.ruler.push(rule.name, rule);
}

/** Chinese, Japanese and Korean, with their punctuation. */
const CJK =
  /[\u1100-\u11ff\u2e80-\u303e\u3041-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\u{20000}-\u{3ffff}]/u;
const { isMdAsciiPunct, isPunctChar, isWhiteSpace } = parser.utils;

/** Emphasis beside those, which have no spaces around their marks: there a mark may open and close
 * as between letters, whatever punctuation is beside it. */
parser.inline.State = class extends parser.inline.State {
  scanDelims(start, canSplitWord) {
    const scanned = super.scanDelims(start, canSplitWord);
    const end = start + scanned.length;
    const before = start > 0 ? charBefore(this.src, start) : " ";
    const after = end < this.posMax ? String.fromCodePoint(this.src.codePointAt(end)) : " ";
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

function charBefore(text, place) {
  const isPair = place > 1 && /[\ud800-\udbff][\udc00-\udfff]/.test(text.slice(place - 2, place));
  return isPair ? text.slice(place - 2, place) : text[place - 1];
}

function isSpace(char) {
  return isWhiteSpace(char.codePointAt(0));
}

function isPunctuation(char) {
  return isMdAsciiPunct(char.codePointAt(0)) || isPunctChar(char);
}

/** Whether it is punctuation that has a space on one side. */
function parts(char) {
  return isPunctuation(char) && !CJK.test(char);
}

/** The tokens of a text; `env` is what is known of the text before it, and learnt from it. */
export function parse(text, env = {}) {
  return parser.parse(text, env);
}

function lowerHeadings({ tokens, env }) {
  const within = (env.headings ??= []);
  for (const token of tokens) {
    if (token.type === "heading_open") {
      const level = Number(token.tag[1]);
      while (within.at(-1) >= level) within.pop();
      within.push(level);
    }
    if (token.type === "heading_open" || token.type === "heading_close") {
      token.tag = `h${Math.min(6, PAGE_HEADINGS + within.length)}`;
    }
  }
}

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

/** A link to the picture; inside another link its words alone. */
function imageLink(Token, image, isInLink) {
  const address = image.attrGet("src") ?? "";
  const words = new Token("text", "", 0);
  words.content = image.content || address;
  if (isInLink) return [words];
  const opening = new Token("link_open", "a", 1);
  opening.attrs = [["href", address]];
  return [opening, words, new Token("link_close", "a", -1)];
}

function alignCells({ tokens }) {
  for (const token of tokens) {
    const style = token.attrGet("style");
    if (style) token.attrs = [["align", style.replace("text-align:", "")]];
  }
}

function nameHosts({ tokens }) {
  for (const block of tokens) markLinks(block.children ?? []);
}

/** Give each closing link token the host that the link's own words do not show. */
function markLinks(tokens) {
  let host = "";
  let words = "";
  for (const token of tokens) {
    if (token.type === "link_open") {
      host = hostOf(token.attrGet("href") ?? "");
      words = "";
    } else if (token.type === "link_close") {
      const isShown = hostOf(words) === host && !words.includes(" ");
      token.meta = { host: isShown ? "" : host };
    } else {
      words += token.content;
    }
  }
}

function hostOf(href) {
  const [, authority = ""] = /^(?:[a-z][a-z0-9+.-]*:)?\/\/([^/?#]*)/i.exec(href) ?? [];
  const host = authority.slice(authority.lastIndexOf("@") + 1);
  const [, bracketed] = /^\[([^\]]*)/.exec(host) ?? [];
  return (bracketed ?? host.split(":")[0]).toLowerCase();
}
