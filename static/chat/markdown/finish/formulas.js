/**
 * Draws formulas as MathML; the library that reads TeX is loaded with the first one.
 *
 * An element with TeX becomes `data-tex`, and the formula. Of the library's markup only known
 * elements and attributes are taken, and what it refuses or what is too large stays text.
 */

import { all, fromTemplate } from "../../page/elements.js";

const MATHML = "http://www.w3.org/1998/Math/MathML";
const ELEMENTS = new Set([
  ...["math", "menclose", "merror", "mfrac", "mi", "mmultiscripts", "mn", "mo", "mover", "mpadded"],
  ...["mphantom", "mprescripts", "mroot", "mrow", "ms", "mspace", "msqrt", "mstyle", "msub"],
  ...["msubsup", "msup", "mtable", "mtd", "mtext", "mtr", "munder", "munderover", "none"],
]);
const ATTRIBUTES = new Set([
  ...[
    "accent",
    "accentunder",
    "columnalign",
    "columnlines",
    "columnspacing",
    "columnspan",
    "depth",
  ],
  ...["display", "displaystyle", "fence", "form", "height", "largeop", "linethickness", "lspace"],
  ...["mathbackground", "mathcolor", "mathvariant", "maxsize", "minsize", "movablelimits"],
  ...["notation", "rowlines", "rowspacing", "rowspan", "rspace", "scriptlevel", "separator"],
  ...["stretchy", "symmetric", "voffset", "width"],
]);
const STYLES =
  /^(?:(?:padding|border)(?:-(?:top|right|bottom|left))?|width|height|text-align|color|display)$/;
const VALUE = /^[\w\s.%#-]+$/;
const CLASS = /^[a-z][a-z-]*[0-9]?$/;
/** A formula of people is shorter; nothing of what is left takes the page long. */
const MAX_CHARS = 4_000;
const MAX_NODES = 4_000;
const MAX_DEPTH = 60;
/** Macros may grow without bounds. */
const DEFINITION =
  /\\(?:[egx]?def|let|futurelet|global|long|(?:re)?newcommand|providecommand|csname|char)(?![a-zA-Z])/;
const OPTIONS = {
  ...{ trust: false, strict: false, throwOnError: true, maxExpand: 200 },
  /** The largest lengths: in em, and in points. */
  maxSize: [20, 200],
};
/** A formula in a line that may be wider than the page scrolls. */
const LONG = 60;
const FRAME_MS = 8;
const REMEMBERED = 500;

/** @type {Typesetter | null} */
let typesetter = null;
/** @type {Promise<void> | null} */
let loading = null;
/** @type {Set<HTMLElement>} */
const waiting = new Set();
/** @type {Map<string, Element | null>} */
const known = new Map();

/**
 * Draw the formulas in a block, and the block itself if it is one.
 * @param {HTMLElement} block
 * @param {boolean} [isGrowing] the text may go on: a formula at its very end may not be complete
 */
export function drawFormulas(block, isGrowing = false) {
  const found = block.matches(".math") ? [block] : all(block, ".math");
  for (const element of found) {
    if (element.dataset.tex !== undefined || (isGrowing && isLast(element, block))) continue;
    if (known.has(keyOf(element))) draw(element);
    else waiting.add(element);
  }
  if (waiting.size) start();
}

/**
 * Turn drawn formulas in `root`, or `root` itself, back into TeX.
 * @param {HTMLElement} root
 */
export function undrawFormulas(root) {
  for (const element of [root, ...all(root, "[data-tex]")]) {
    const { tex } = element.dataset;
    if (tex === undefined) continue;
    element.removeAttribute("data-tex");
    element.removeAttribute("data-long");
    element.replaceChildren(tex);
  }
}

/**
 * @param {HTMLElement} element
 * @param {HTMLElement} block
 */
function isLast(element, block) {
  for (let node = /** @type {Node | null} */ (element); node && node !== block; ) {
    for (let next = node.nextSibling; next; next = next.nextSibling) {
      if (next.textContent?.trim()) return false;
    }
    node = node.parentNode;
  }
  return true;
}

function start() {
  if (typesetter) return void requestAnimationFrame(work);
  loading ??= load();
  return void loading;
}

async function load() {
  try {
    const { default: library } = await import("../../../vendor/temml.js");
    document.head.append(fromTemplate("math-template"));
    typesetter = library;
    work();
  } catch {
    // Formulas stay TeX until a later one asks again.
    loading = null;
  }
}

/** Draw what waits, but no longer than is possible without a pause in this frame. */
function work() {
  const begun = performance.now();
  for (const element of waiting) {
    if (performance.now() - begun > FRAME_MS) return void requestAnimationFrame(work);
    waiting.delete(element);
    if (element.isConnected) draw(element);
  }
  return undefined;
}

/** @param {HTMLElement} element */
function keyOf(element) {
  return `${element.localName} ${element.className} ${element.textContent}`;
}

/** @param {HTMLElement} element */
function draw(element) {
  const key = keyOf(element);
  const tex = element.textContent;
  if (!known.has(key)) {
    if (known.size >= REMEMBERED) known.clear();
    known.set(key, read(tex, element.localName === "div" || element.matches(".display")));
  }
  const formula = known.get(key);
  if (!formula) return;
  element.dataset.tex = tex;
  element.toggleAttribute("data-long", tex.length > LONG);
  element.replaceChildren(formula.cloneNode(true));
}

/**
 * The formula as MathML; null if it cannot or should not be drawn.
 * @param {string} tex
 * @param {boolean} displayMode
 */
function read(tex, displayMode) {
  if (tex.length > MAX_CHARS || DEFINITION.test(tex)) return null;
  try {
    const markup = typesetter?.renderToString(tex, { ...OPTIONS, displayMode, xml: true }) ?? "";
    // A style in markup is a violation of the page's policy, even if it is never applied.
    const quiet = markup.replaceAll(' style="', ' data-style="');
    const { documentElement } = new DOMParser().parseFromString(quiet, "application/xml");
    return copyOf(documentElement, { left: MAX_NODES }, 0);
  } catch {
    return null;
  }
}

/**
 * A copy with known elements and attributes; throws for others, and if it is too large.
 * @param {Element} source
 * @param {{ left: number }} budget
 * @param {number} depth
 * @returns {Element}
 */
export function copyOf(source, budget, depth) {
  budget.left -= 1;
  if (budget.left < 0 || depth > MAX_DEPTH) throw new Error("too large");
  if (!ELEMENTS.has(source.localName)) throw new Error(`no place for <${source.localName}>`);
  const copy = /** @type {MathMLElement} */ (document.createElementNS(MATHML, source.localName));
  for (const { name, value } of source.attributes) {
    if (name === "class") copy.classList.add(...value.split(" ").filter((one) => CLASS.test(one)));
    else if (name === "data-style") copyStyle(copy, value);
    else if (ATTRIBUTES.has(name)) copy.setAttribute(name, value);
  }
  for (const child of source.childNodes) {
    if (child instanceof Element) copy.append(copyOf(child, budget, depth + 1));
    else copy.append(child.nodeValue ?? "");
  }
  return copy;
}

/**
 * @param {MathMLElement} copy
 * @param {string} style
 */
function copyStyle(copy, style) {
  for (const declaration of style.split(";")) {
    const [name, value = ""] = declaration.split(":", 2);
    if (STYLES.test(name) && VALUE.test(value)) copy.style.setProperty(name, value);
  }
}
