/** Renames a conversation in place: Enter saves the new title, Escape keeps the old one. */

import { closest, fieldOf, fromTemplate } from "../page/elements.js";
import { isField } from "../page/keys.js";

/**
 * The open forms, and the function that closes each.
 * @type {WeakMap<Element, (isKept: boolean) => void>}
 */
const open = new WeakMap();

/**
 * Show a field in place of `shown`; `save` gets the new title, `leave` is called at the end. A title
 * that was `typed` before, and refused, stands in the field; whoever types elsewhere goes on there.
 * @param {HTMLElement} shown
 * @param {string} title
 * @param {{ save: (title: string) => void, leave: () => void, typed?: string }} then
 */
export function askTitle(shown, title, { save, leave, typed }) {
  const form = /** @type {HTMLFormElement} */ (fromTemplate("rename-template"));
  const input = fieldOf(form, "title");

  /** @param {boolean} isKept */
  function close(isKept) {
    if (!open.delete(form)) return;
    const hadFocus = form.contains(document.activeElement);
    form.remove();
    shown.hidden = false;
    const wanted = input.value.trim();
    if (isKept && wanted && wanted !== title) save(wanted);
    if (hadFocus) leave();
  }

  open.set(form, close);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    close(true);
  });
  input.addEventListener("blur", () => close(true));
  input.value = typed ?? title;
  shown.hidden = true;
  shown.after(form);
  if (typed !== undefined && isField(document.activeElement)) return;
  input.focus();
  input.select();
}

/**
 * Escape in the field keeps the old title.
 * @param {KeyboardEvent} event
 */
export function pressInRename(event) {
  const form = closest(event, ".rename");
  if (!form || event.key !== "Escape") return false;
  event.preventDefault();
  open.get(form)?.(false);
  return true;
}
