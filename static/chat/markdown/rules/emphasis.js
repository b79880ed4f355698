/** Emphasis in Chinese, Japanese and Korean. */

import { utils } from "./library.js";

/** Chinese, Japanese and Korean characters, with their punctuation. */
export const CJK =
  /[\u1100-\u11ff\u2e80-\u303e\u3041-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\u{20000}-\u{3ffff}]/u;

/**
 * Allow emphasis next to such characters, which are written without spaces: there a mark may open
 * and close as between letters, whatever punctuation is next to it.
 * @param {Parser} parser
 */
export function allowEmphasisInCjk(parser) {
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
}

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
  return utils.isWhiteSpace(codeOf(char));
}

/** @param {string} char */
function isPunctuation(char) {
  return utils.isMdAsciiPunct(codeOf(char)) || utils.isPunctChar(char);
}

/**
 * Whether it is punctuation, other than that of Chinese, Japanese or Korean.
 * @param {string} char
 */
function parts(char) {
  return isPunctuation(char) && !CJK.test(char);
}
