/** Copying, also where pages may not use the clipboard's own interface: on plain HTTP. */

import { words } from "./words.js";

const SHOWN_MS = 2_000;

/** Put a text on the clipboard; whether that was possible. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

/** The same with HTML beside it, where that can be. */
export async function copyRich(text, html) {
  try {
    const flavours = { "text/plain": blobOf(text, "text/plain"), "text/html": blobOf(html, "text/html") };
    await navigator.clipboard.write([new ClipboardItem(flavours)]);
    return true;
  } catch {
    return copyText(text);
  }
}

function blobOf(text, type) {
  return new Blob([text], { type });
}

function copyBySelection(text) {
  const field = document.createElement("textarea");
  const focused = document.activeElement;
  field.value = text;
  field.className = "visually-hidden";
  (document.querySelector("dialog:modal") ?? document.body).append(field);
  field.select();
  const isDone = document.execCommand("copy");
  field.remove();
  focused?.focus({ preventScroll: true });
  return isDone;
}

/** Say on the button for a moment whether it worked. */
export function showCopied(button, isDone) {
  const label = button.querySelector(".label");
  const before = (button.dataset.label ??= label.textContent);
  label.textContent = isDone ? words.copy.done : words.copy.failed;
  document.getElementById("announcer").replaceChildren(label.textContent);
  clearTimeout(Number(button.dataset.timer));
  button.dataset.timer = setTimeout(() => (label.textContent = before), SHOWN_MS);
}
