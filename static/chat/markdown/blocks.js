/** What a finished block of a reply gets beside its text: room to scroll, a button to copy code. */

import { copyText, showCopied } from "../page/clipboard.js";
import { all, fromTemplate } from "../page/elements.js";

/**
 * Equip a block, or those within it.
 * @param {HTMLElement} block
 */
export function finishBlock(block) {
  for (const code of withSelf(block, "pre")) finishCode(code);
  for (const table of withSelf(block, "table")) wrap(table, "wide");
}

/**
 * Equip everything that the server has rendered in `root`.
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
 * The code for that comes with the first block that wants it.
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

/** What does not fit can be scrolled by keys. */
const widths = new ResizeObserver((entries) => {
  for (const { target: frame } of entries) {
    const scroller = frame.className === "code" ? frame.firstElementChild : frame;
    if (!scroller) continue;
    if (scroller.scrollWidth > scroller.clientWidth) scroller.setAttribute("tabindex", "0");
    else scroller.removeAttribute("tabindex");
  }
});
