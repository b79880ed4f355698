/**
 * Completes the end of a growing text to what it will probably become.
 *
 * Characters that may become a mark (of a list, a heading, a table, code) are held back until they
 * are one; open emphasis, code and links are closed, so nothing is shown as text that vanishes
 * later.
 */

const INDENT = /^[\s>]+/;
const MARKS =
  /^(?:[-=*+_#|:~`\s]*|\d{1,9}[.)]?\s*|(?:[-*+]|\d{1,9}[.)])\s+\[[ xX]?\]?|\[(?:!\w*\]?|\^[^\]\s]*\]?:?)?|\$\$?|\\)$/;
const FENCE = /^(?:[-*+]\s+|\d{1,9}[.)]\s+)?(?:`{3,}|~{3,})/;
/** A formula that begins a line, after what the line is in. */
const FORMULA = /^(\s*(?:(?:[-*+]|\d{1,9}[.)])\s+|>\s?)*)(\$\$|\\\[)(.*)$/;
/** Formulas in a line; prices have none of the marks that the last kind asks for. */
const FORMULAS = /\\\(.*?\\\)|\\\[.*?\\\]|\$\$.*?\$\$|\$[^\s$][^$]*\$/g;
const OPEN_FORMULA = /\\\(|\\\[|\$\$|\$(?=[^\s$][^$]*[\\^{])/;
/** @type {Record<string, string>} */
const ENDS = { "\\(": "\\)", "\\[": "\\]", $$: "$$", $: "$" };
const LONG = 2_000;

/**
 * The text as it is to be shown.
 * @param {string} text
 */
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
 * The text with its last formula closed, if it ends in what may be one that has lines of its own;
 * else empty.
 * @param {string} text
 */
export function withFormula(text) {
  const lines = text.split("\n");
  const start = lines.findLastIndex((line) => FORMULA.test(line));
  const [, marks = "", mark = "", rest = ""] = FORMULA.exec(lines[start] ?? "") ?? [];
  const indent = marks.replace(/[^>\s]/g, " ");
  const later = lines.slice(start + 1);
  if (!mark || isOver(mark, indent, rest, later) || isInCode(lines.slice(0, -1))) return "";
  const shown = lines.join("\n").replace(/\s*[$\\]?\s*$/, "");
  const isEmpty = shown.endsWith(mark) || !`${rest}${later.join("")}`.replace(/[$\\]$/, "").trim();
  return isEmpty ? lines.slice(0, start).join("\n") || "\n" : `${shown}\n${indent}${ENDS[mark]}`;
}

/**
 * Whether what began with `mark` and `rest` has ended, or is no formula.
 * @param {string} mark
 * @param {string} indent
 * @param {string} rest
 * @param {string[]} later the lines after it
 */
function isOver(mark, indent, rest, later) {
  const isLink = mark === "\\[" && rest.includes("]");
  const isClosed = [rest, ...later].some((line) => line.includes(ENDS[mark]));
  const hasGap = later.slice(0, -1).some((line) => !line.trim());
  return (
    isLink || isClosed || hasGap || later.some((line) => line.trim() && isOutside(line, indent))
  );
}

/**
 * @param {string} line
 * @param {string} indent
 */
function isOutside(line, indent) {
  return (/^[\s>]*/.exec(line)?.[0].length ?? 0) < indent.length;
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
  const words = shown.replace(/`[^`]*`/g, "").replace(FORMULAS, "");
  const [mark] = OPEN_FORMULA.exec(words) ?? [];
  if (mark && !FORMULA.test(line)) return line.replace(/[\\$]$/, "") + ENDS[mark];
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
