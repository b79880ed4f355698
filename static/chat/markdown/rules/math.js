/** Formulas: in a line, and in lines of their own. */

/** @type {Record<string, string>} */
const ENDS = { $$: "$$", $: "$", "\\(": "\\)", "\\[": "\\]" };
const MARKS = Object.keys(ENDS);
/** No formula is longer: looking for its end costs time for each mark. */
const FORMULA_CHARS = 4_000;
const FORMULA_LINES = 100;
/** Prices: a number, then words, without anything that only formulas have. */
const PRICE = /^[0-9][^\\^_=+<>{}]*[ ][^\\^_=+<>{}]*$/;

/**
 * Add the rules of formulas.
 * @param {Parser} parser
 */
export function addMath(parser) {
  const alt = ["paragraph", "reference", "blockquote", "list"];
  parser.block.ruler.before("fence", "math_block", mathBlock, { alt });
  parser.inline.ruler.before("escape", "math", math);
}

/**
 * A formula in a line: `$x$`, `$$x$$`, `\\(x\\)` or `\\[x\\]`.
 * @type {InlineRule}
 */
function math(state, silent) {
  const { src, pos, posMax } = state;
  const mark = MARKS.find((opening) => src.startsWith(opening, pos));
  if (!mark) return false;
  const begin = pos + mark.length;
  const end = findEnd(src, begin, posMax, ENDS[mark]);
  const tex = end > 0 ? src.slice(begin, end) : "";
  if (!trim(tex) || tex.includes("`") || (mark === "$" && !isFormula(src, begin, end)))
    return false;
  state.pos = end + mark.length;
  if (silent) return true;
  const token = state.push("math", "span", 0);
  token.attrs = [["class", mark === "$$" || mark === "\\[" ? "math display" : "math"]];
  token.content = trim(tex);
  return true;
}

/**
 * Where `mark` stands first, not counting escaped characters; or -1.
 * @param {string} src
 * @param {number} start
 * @param {number} end
 * @param {string} mark
 */
function findEnd(src, start, end, mark) {
  const last = Math.min(end, start + FORMULA_CHARS) - mark.length;
  let place = src.slice(0, last + mark.length).indexOf(mark, start);
  // The marks that begin with a backslash are not escaped by the one before it.
  while (place >= 0 && mark[0] === "$" && isEscaped(src, start, place)) {
    place = src.slice(0, last + mark.length).indexOf(mark, place + 1);
  }
  return place;
}

/**
 * @param {string} src
 * @param {number} begin
 * @param {number} place
 */
function isEscaped(src, begin, place) {
  let count = 0;
  while (place - count > begin && src[place - count - 1] === "\\") count += 1;
  return count % 2 === 1;
}

/**
 * Whether text between single dollars is a formula, and not between two prices.
 * @param {string} src
 * @param {number} begin
 * @param {number} end
 */
function isFormula(src, begin, end) {
  const tex = src.slice(begin, end);
  const around = (src[begin - 2] ?? "") + (src[end + 1] ?? "");
  return !PRICE.test(tex) && !/^ |\n| $/.test(tex) && !/[A-Za-z0-9$]/.test(around);
}

/**
 * A formula that has lines of its own, between `$$` or between `\\[` and `\\]`.
 * @type {BlockRule}
 */
function mathBlock(state, start, end, silent) {
  const line = lineAt(state, start);
  const mark = line.slice(0, 2);
  if (isCode(state, start) || (mark !== "$$" && mark !== "\\[")) return false;
  const lines = [line.slice(2)];
  for (let next = start + 1; !lines[lines.length - 1].includes(ENDS[mark]); next += 1) {
    if (next >= Math.min(end, start + FORMULA_LINES) || state.sCount[next] < state.blkIndent)
      return false;
    lines.push(lineAt(state, next));
    if (!lines[lines.length - 1]) return false;
  }
  const text = lines.join("\n");
  const close = text.indexOf(ENDS[mark]);
  const tex = trim(text.slice(0, close));
  if (close + 2 < text.length || !tex) return false;
  if (silent) return true;
  const token = state.push("math", "div", 0);
  token.attrs = [["class", "math"]];
  token.block = true;
  token.content = tex;
  token.map = [start, start + lines.length];
  state.line = start + lines.length;
  return true;
}

/**
 * @param {BlockState} state
 * @param {number} line
 */
function isCode(state, line) {
  return state.sCount[line] - state.blkIndent >= 4;
}

/**
 * The text of a line, without the indentation and the marks of what it is in.
 * @param {BlockState} state
 * @param {number} number
 */
function lineAt({ src, bMarks, tShift, eMarks }, number) {
  return src.slice(bMarks[number] + tShift[number], eMarks[number]).replace(/[ \t]+$/, "");
}

/** @param {string} tex */
function trim(tex) {
  return tex.replace(/^[ \t\n]+|[ \t\n]+$/g, "");
}
