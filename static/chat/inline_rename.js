/** A title that becomes a field where it stands: Enter keeps what was typed, Esc what was. */

import { fromTemplate, isComposing } from "./elements.js";

/** Ask for another title in place of `shown`; `save` gets it, `leave` is called at the end. */
export function askTitle(shown, title, { save, leave }) {
  const form = fromTemplate("rename-template");
  const input = form.elements.title;
  let isOpen = true;

  function close(isKept) {
    if (!isOpen) return;
    isOpen = false;
    const hadFocus = form.contains(document.activeElement);
    form.remove();
    shown.hidden = false;
    const wanted = input.value.trim();
    if (isKept && wanted && wanted !== title) save(wanted);
    if (hadFocus) leave?.();
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    close(true);
  });
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || isComposing(event)) return;
    event.stopPropagation();
    event.preventDefault();
    close(false);
  });
  input.addEventListener("blur", () => close(true));
  input.value = title;
  shown.hidden = true;
  shown.after(form);
  input.focus();
  input.select();
}
