/**
 * The end of a text that is still growing, as it will probably look.
 *
 * What may become a mark (of a list, a heading, a table, code) waits until it is one; what is
 * open (emphasis, code, a link) is closed, so that nothing is shown as text and then vanishes.
 */

const INDENT = /^[\s>]+/;
const MARKS = /^(?:[-=*+_#|:~`\s]*|\d{1,9}[.)]?\s*|[-*+]\s+\[[ x]?\]?)$/;
const FENCE = /^(?:[-*+]\s+|\d{1,9}[.)]\s+)?(?:`{3,}|~{3,})/;
const LONG = 2_000;

/** @param {string} text */
export function presentable(text) {
  const lines = text.split("\n");
  const last = lines.pop() ?? "";
  if (isInCode(lines)) return text;
  const word = last.slice(0, LONG).replace(INDENT, "");
  const isUndecided = MARKS.test(word) || FENCE.test(word);
  return withoutHeader([...lines, isUndecided ? "" : closed(last)]).join("\n");
}

/**
 * Within a list a block of code may be open.
 * @param {string[]} lines
 */
function isInCode(lines) {
  return lines.filter((line) => FENCE.test(line.trimStart())).length % 2 === 1;
}

/**
 * The first row of a table is one only when the second has come whole.
 * @param {string[]} lines
 */
function withoutHeader(lines) {
  const end = lines.at(-1) ? lines.length : lines.length - 1;
  const first = lines.slice(0, end).findLastIndex((line) => !isRow(line)) + 1;
  const isBegun = first < end && lines.length - 1 - first < 2;
  return isBegun ? [...lines.slice(0, first), ""] : lines;
}

/** @param {string} line */
function isRow(line) {
  return line.trimStart().startsWith("|");
}

/** @param {string} line */
function closed(line) {
  if (line.length > LONG) return line;
  let shown = line.replace(/\]\([^)\s]*$/, "]()").replace(/[*_~]+$/, "");
  if (count(shown, /`/g) % 2) return `${shown}\``;
  const words = shown.replace(/`[^`]*`/g, "");
  if (count(words, /~~/g) % 2) shown += "~~";
  if (count(words, /\*\*/g) % 2) shown += "**";
  else if (/(?:^|[\s(])\*[^\s*][^*]*$/.test(words)) shown += "*";
  return shown;
}

/**
 * @param {string} text
 * @param {RegExp} pattern
 */
function count(text, pattern) {
  return (text.match(pattern) ?? []).length;
}
