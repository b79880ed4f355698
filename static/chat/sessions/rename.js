/** A title that becomes a field where it stands: Enter keeps what was typed, Esc what was. */

import { closest, fieldOf, fromTemplate } from "../page/elements.js";

/**
 * The forms that are open, and what closes them.
 * @type {WeakMap<Element, (isKept: boolean) => void>}
 */
const open = new WeakMap();

/**
 * Ask for another title in place of `shown`; `save` gets it, `leave` is called at the end.
 * @param {HTMLElement} shown
 * @param {string} title
 * @param {{ save: (title: string) => void, leave: () => void }} then
 */
export function askTitle(shown, title, { save, leave }) {
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
  input.value = title;
  shown.hidden = true;
  shown.after(form);
  input.focus();
  input.select();
}

/**
 * Escape in the field leaves the title as it was.
 * @param {KeyboardEvent} event
 */
export function pressInRename(event) {
  const form = closest(event, ".rename");
  if (!form || event.key !== "Escape") return false;
  event.preventDefault();
  open.get(form)?.(false);
  return true;
}
