/** Copies text, also on plain HTTP, where the clipboard API is not available. */

import { byId, within } from "./elements.js";
import { words } from "./words.js";

const SHOWN_MS = 2_000;

/**
 * Put a text on the clipboard; returns whether that worked.
 * @param {string} text
 */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

/**
 * The same with HTML beside it, where the browser supports that.
 * @param {string} text
 * @param {string} html
 */
export async function copyRich(text, html) {
  try {
    const flavours = {
      "text/plain": blobOf(text, "text/plain"),
      "text/html": blobOf(html, "text/html"),
    };
    await navigator.clipboard.write([new ClipboardItem(flavours)]);
    return true;
  } catch {
    return copyText(text);
  }
}

/**
 * @param {string} text
 * @param {string} type
 */
function blobOf(text, type) {
  return new Blob([text], { type });
}

/** @param {string} text */
function copyBySelection(text) {
  const field = document.createElement("textarea");
  const focused = /** @type {HTMLElement | null} */ (document.activeElement);
  field.value = text;
  field.className = "visually-hidden";
  (document.querySelector("dialog:modal") ?? document.body).append(field);
  field.select();
  const isDone = document.execCommand("copy");
  field.remove();
  focused?.focus({ preventScroll: true });
  return isDone;
}

/**
 * Show on the button for a moment whether copying worked.
 * @param {HTMLElement} button
 * @param {boolean} isDone
 */
export function showCopied(button, isDone) {
  const label = within(button, ".label");
  button.dataset.label ??= label.textContent;
  const before = button.dataset.label;
  label.textContent = isDone ? words.copy.done : words.copy.failed;
  if (isDone) button.dataset.copied = "";
  byId("announcer").replaceChildren(label.textContent);
  clearTimeout(Number(button.dataset.timer));
  const timer = setTimeout(() => {
    label.textContent = before;
    delete button.dataset.copied;
  }, SHOWN_MS);
  button.dataset.timer = String(timer);
}
