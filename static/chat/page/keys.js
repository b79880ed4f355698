/**
 * The keys of the page: one listener, which asks handlers in one order (see `main.js`).
 *
 * No other module listens to keys. A handler does what the key means to it and returns true, or
 * leaves the key to the next one.
 */

import { closest } from "./elements.js";

const TYPING = "input, textarea, select, [contenteditable]";

/**
 * Ask `handlers` in turn about each key that is not part of what is being composed.
 * @param {((event: KeyboardEvent) => boolean)[]} handlers
 */
export function routeKeys(handlers) {
  document.addEventListener("keydown", (event) => {
    if (!isComposing(event)) handlers.some((press) => press(event));
  });
}

/**
 * Whether a key belongs to what is being composed; Safari tells of the last one only by its code.
 * @param {KeyboardEvent} event
 */
function isComposing(event) {
  return event.isComposing || event.keyCode === 229;
}

/**
 * Whether somebody types in a field.
 * @param {KeyboardEvent} event
 */
export function isTyping(event) {
  return closest(event, TYPING) !== null;
}

/**
 * Escape closes an open menu of the account.
 * @param {KeyboardEvent} event
 */
export function closeAccount(event) {
  const menu = document.querySelector("details.account[open]");
  if (event.key !== "Escape" || !(menu instanceof HTMLDetailsElement)) return false;
  menu.open = false;
  menu.querySelector("summary")?.focus();
  return true;
}

/**
 * Escape closes a menu, the drawer or a dialog: the browser does that by itself.
 * @param {KeyboardEvent} event
 */
export function leaveToBrowser(event) {
  const isOpen = document.querySelector(":popover-open:not(.toast), dialog[open]");
  return event.key === "Escape" && isOpen !== null;
}

/** The list of shortcuts, and those that belong to the page as a whole. */
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
   * In an empty box a question mark may begin a question: only elsewhere it is a key.
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
