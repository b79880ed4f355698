/** What a finished block of a reply gets beside its text: room to scroll, a button to copy code. */

import { copyText, showCopied } from "./clipboard.js";
import { fromTemplate } from "./elements.js";

/** Equip a block, or those within it. */
export function finishBlock(block) {
  for (const code of within(block, "pre")) finishCode(code);
  for (const table of within(block, "table")) wrap(table, "wide");
}

/** Equip everything that the server has rendered in `root`. */
export function finishBlocks(root) {
  for (const part of root.querySelectorAll(".rendered")) finishBlock(part);
}

function within(block, name) {
  return block.matches(name) ? [block] : block.querySelectorAll(name);
}

function finishCode(block) {
  if (block.parentElement.className === "code") return;
  const frame = wrap(block, "code");
  const button = fromTemplate("copy-template");
  button.addEventListener("click", async () => showCopied(button, await copyText(block.textContent)));
  frame.append(button);
  if (block.dataset.language) colour(block);
}

/** The code for that comes with the first block that wants it. */
async function colour(block) {
  try {
    const { highlight } = await import("./highlight.js");
    highlight(block);
  } catch {
    // It stays plain.
  }
}

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
    if (scroller.scrollWidth > scroller.clientWidth) scroller.tabIndex = 0;
    else scroller.removeAttribute("tabindex");
  }
});
