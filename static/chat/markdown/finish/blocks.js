/**
 * Adds to finished blocks of a reply what needs a script: controls of code, formulas, pictures on
 * demand, and ways between footnotes and the text.
 */

import { copyText, showCopied } from "../../page/clipboard.js";
import { all, fromTemplate, within } from "../../page/elements.js";
import { fill, words } from "../../page/words.js";

/** Longer code is folded. */
const FOLDED_LINES = 30;

/**
 * Finish a block and the blocks inside it.
 * @param {HTMLElement} block
 * @param {boolean} [isFolded] whether long code begins folded
 */
export function finishBlock(block, isFolded = false) {
  if (withSelf(block, ".math").length) drawMath(block);
  for (const code of withSelf(block, "pre")) finishCode(code, isFolded);
  for (const table of withSelf(block, "table")) wrap(table, "wide");
  for (const link of withSelf(block, 'a.picture[href^="https:"]')) offerPicture(link);
  for (const label of withSelf(block, "sup")) linkNote(label);
}

/**
 * Finish all blocks that the server has rendered in `root`; long code is folded.
 * @param {ParentNode} root
 */
export function finishBlocks(root) {
  for (const part of all(root, ".rendered")) finishBlock(part, true);
}

/**
 * @param {HTMLElement} block
 * @param {string} name
 */
function withSelf(block, name) {
  return block.matches(name) ? [block] : all(block, name);
}

/**
 * @param {HTMLElement} block
 * @param {boolean} isFolded
 */
function finishCode(block, isFolded) {
  if (block.parentElement?.matches(".code")) return;
  const frame = wrap(block, "code");
  const bar = fromTemplate("code-template");
  const copy = within(bar, "button.copy-code");
  copy.addEventListener("click", async () => showCopied(copy, await copyText(block.textContent)));
  within(bar, "button.wrap-code").addEventListener("click", ({ currentTarget }) => {
    const isWrapped = block.classList.toggle("wrapped");
    /** @type {HTMLElement} */ (currentTarget).ariaPressed = String(isWrapped);
  });
  frame.prepend(bar);
  const count = block.textContent.trimEnd().split("\n").length;
  if (count > FOLDED_LINES) addFold(frame, count, isFolded);
  if (block.dataset.language === "mermaid") offerDiagram(block, bar);
  else if (block.dataset.language) colour(block);
}

/**
 * Add a button below long code that hides and shows what is after its beginning.
 * @param {HTMLElement} frame
 * @param {number} count
 * @param {boolean} isFolded
 */
function addFold(frame, count, isFolded) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "fold-code";
  const show = (/** @type {boolean} */ isHidden) => {
    frame.classList.toggle("folded", isHidden);
    button.ariaExpanded = String(!isHidden);
    button.textContent = isHidden ? fill(words.code.show, { count }) : words.code.hide;
  };
  button.addEventListener("click", () => {
    const isHidden = !frame.matches(".folded");
    show(isHidden);
    // What was below the end of the code is in sight again, and the button is where it was.
    if (isHidden) frame.scrollIntoView({ block: "nearest" });
  });
  show(isFolded);
  frame.append(button);
}

/**
 * Draw formulas; what draws them is loaded with the first one.
 * @param {HTMLElement} block
 */
async function drawMath(block) {
  try {
    const { drawFormulas } = await import("./formulas.js");
    drawFormulas(block);
  } catch {
    // They stay TeX.
  }
}

/**
 * Colour code; the highlighter is loaded with the first block that needs it.
 * @param {HTMLElement} block
 */
async function colour(block) {
  try {
    const { highlight } = await import("./highlight.js");
    highlight(block);
  } catch {
    // It stays plain.
  }
}

/**
 * Offer to draw the diagram that the code describes.
 * @param {HTMLElement} block
 * @param {HTMLElement} bar
 */
function offerDiagram(block, bar) {
  const button = fromTemplate("diagram-template");
  button.addEventListener("click", async () => {
    const { drawDiagram } = await import("./diagrams.js");
    const frame = document.createElement("iframe");
    frame.title = button.textContent;
    drawDiagram(frame, button.dataset.page ?? "", block.textContent);
    block.parentElement?.after(frame);
    button.remove();
  });
  bar.prepend(button);
}

/**
 * Offer to show the picture that a link leads to: nothing is fetched before.
 *
 * It is shown by a page of its own, because this one may not load what is elsewhere.
 * @param {HTMLElement} link
 */
function offerPicture(link) {
  const host = link.nextElementSibling;
  const after = host?.matches(".link-host") ? host : link;
  if (after.nextElementSibling?.matches(".show-picture")) return;
  const button = fromTemplate("picture-template");
  button.addEventListener("click", () => {
    const frame = document.createElement("iframe");
    frame.className = "picture-frame";
    frame.title = link.textContent;
    frame.setAttribute("sandbox", "");
    frame.referrerPolicy = "no-referrer";
    frame.src = `${button.dataset.page}?${new URLSearchParams({ src: link.getAttribute("href") ?? "" })}`;
    button.replaceWith(frame);
  });
  after.after(button);
}

/**
 * Let a reference lead to its footnote, and a footnote back to its first reference.
 * @param {HTMLElement} label
 */
function linkNote(label) {
  const isReference = label.matches(".footnote-ref");
  if ((!isReference && !label.parentElement?.matches(".footnote")) || within(label, "button"))
    return;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "note-link";
  button.append(...label.childNodes);
  button.addEventListener("click", () => {
    const reply = button.closest(".body, .shared-message") ?? document;
    const name = button.textContent;
    const wanted = all(reply, isReference ? ".footnote > sup" : ".footnote-ref");
    const target = wanted.find((other) => other.textContent === name);
    target?.scrollIntoView({ block: "nearest" });
    target?.querySelector("button")?.focus({ preventScroll: true });
  });
  label.append(button);
}

/**
 * @param {HTMLElement} element
 * @param {string} className
 */
function wrap(element, className) {
  const frame = document.createElement("div");
  frame.className = className;
  element.replaceWith(frame);
  frame.append(element);
  widths.observe(className === "code" ? element : frame);
  return frame;
}

/** Blocks that are wider than the page get a tab stop, so that keys can scroll them. */
const widths = new ResizeObserver((entries) => {
  for (const { target: block } of entries) {
    const isWide = block.scrollWidth > block.clientWidth;
    if (isWide) block.setAttribute("tabindex", "0");
    else block.removeAttribute("tabindex");
    const button = block.parentElement?.querySelector(".wrap-code");
    if (block.matches("pre"))
      button?.toggleAttribute("hidden", !isWide && !block.matches(".wrapped"));
  }
});
