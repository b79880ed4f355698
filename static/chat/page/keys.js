/**
 * Keyboard handling: one listener, which asks handlers in a fixed order (see `main.js`).
 *
 * No other module listens to keys. A handler acts on a key and returns true, or returns false to
 * pass it on.
 */

const TYPING = "input, textarea, select, [contenteditable]";

/**
 * Pass each key to `handlers` in turn, except keys of an input method's composition.
 * @param {((event: KeyboardEvent) => boolean)[]} handlers
 */
export function routeKeys(handlers) {
  document.addEventListener("keydown", (event) => {
    if (!isComposing(event)) handlers.some((press) => press(event));
  });
}

/**
 * Whether a key belongs to a composition; Safari marks the last one only by its key code.
 * @param {KeyboardEvent} event
 */
function isComposing(event) {
  return event.isComposing || event.keyCode === 229;
}

/**
 * Whether the event comes from a text field.
 * @param {KeyboardEvent} event
 */
export function isTyping({ target }) {
  return isField(target);
}

/**
 * Whether somebody can type or choose there.
 * @param {EventTarget | null} target
 */
export function isField(target) {
  return target instanceof Element && target.closest(TYPING) !== null;
}

/**
 * Escape closes the open account menu.
 * @param {KeyboardEvent} event
 */
export function closeAccount(event) {
  const menu = document.querySelector("details.account[open]");
  if (event.key !== "Escape" || !(menu instanceof HTMLDetailsElement)) return false;
  // The drawer around it stays open.
  event.preventDefault();
  menu.open = false;
  menu.querySelector("summary")?.focus();
  return true;
}

/**
 * Whether Escape must be left to the browser, which closes menus, the drawer and dialogs by itself.
 * @param {KeyboardEvent} event
 */
export function leaveToBrowser(event) {
  const isOpen = document.querySelector(":popover-open:not(.toast), dialog[open]");
  return event.key === "Escape" && isOpen !== null;
}

/** The dialog with the list of shortcuts, and shortcuts of the whole page. */
export class Shortcuts {
  /** @param {{ dialog: HTMLDialogElement, newChat: HTMLElement }} elements */
  constructor({ dialog, newChat }) {
    this.dialog = dialog;
    this.newChat = newChat;
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }

  show() {
    if (!this.dialog.open) this.dialog.showModal();
  }

  /**
   * Handle shortcuts of the page. In an empty composer a question mark may begin a question, so it
   * is a shortcut only elsewhere.
   * @param {KeyboardEvent} event
   */
  press(event) {
    const isCommand = event.ctrlKey || event.metaKey;
    const isNew = isCommand && event.shiftKey && event.code === "KeyO";
    const isHelp = event.key === "?" && !isCommand && !isTyping(event);
    if (!isNew && !isHelp) return false;
    event.preventDefault();
    if (isNew) this.newChat.click();
    else this.show();
    return true;
  }
}
