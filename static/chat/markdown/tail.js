/**
 * Completes the end of a growing text to what it will probably become.
 *
 * Characters that may become a mark (of a list, a heading, a table, code) are held back until they
 * are one; open emphasis, code and links are closed, so nothing is shown as text that vanishes
 * later.
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
 * Whether the line after these is inside a code block; its fences may be indented in a list.
 * @param {string[]} lines
 */
function isInCode(lines) {
  return lines.filter((line) => FENCE.test(line.trimStart())).length % 2 === 1;
}

/**
 * The text without the first row of a table, until the second row is complete: only then is it a
 * table.
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
