/**
 * Adds controls to finished blocks of a reply: scrolling for wide ones, a button that copies code.
 */

import { copyText, showCopied } from "../page/clipboard.js";
import { all, fromTemplate } from "../page/elements.js";

/**
 * Add controls to a block and to blocks inside it.
 * @param {HTMLElement} block
 */
export function finishBlock(block) {
  for (const code of withSelf(block, "pre")) finishCode(code);
  for (const table of withSelf(block, "table")) wrap(table, "wide");
}

/**
 * Add controls to all blocks that the server has rendered in `root`.
 * @param {ParentNode} root
 */
export function finishBlocks(root) {
  for (const part of all(root, ".rendered")) finishBlock(part);
}

/**
 * @param {HTMLElement} block
 * @param {string} name
 */
function withSelf(block, name) {
  return block.matches(name) ? [block] : all(block, name);
}

/** @param {HTMLElement} block */
function finishCode(block) {
  if (block.parentElement?.className === "code") return;
  const frame = wrap(block, "code");
  const button = fromTemplate("copy-template");
  button.addEventListener("click", async () =>
    showCopied(button, await copyText(block.textContent)),
  );
  frame.append(button);
  if (block.dataset.language) colour(block);
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
 * @param {HTMLElement} element
 * @param {string} className
 */
function wrap(element, className) {
  const frame = document.createElement("div");
  frame.className = className;
  element.replaceWith(frame);
  frame.append(element);
  widths.observe(frame);
  return frame;
}

/** Blocks that are wider than the page get a tab stop, so that keys can scroll them. */
const widths = new ResizeObserver((entries) => {
  for (const { target: frame } of entries) {
    const scroller = frame.className === "code" ? frame.firstElementChild : frame;
    if (!scroller) continue;
    if (scroller.scrollWidth > scroller.clientWidth) scroller.setAttribute("tabindex", "0");
    else scroller.removeAttribute("tabindex");
  }
});
