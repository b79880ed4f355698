/** One short notice over the page, with an undo button where the action can be undone. */

import { closest, within } from "./elements.js";

const SHOWN_MS = 10_000;

export class Toast {
  #timer = 0;
  /** @type {(() => void) | undefined} */
  #undo;
  /** @type {(() => void) | undefined} */
  #onLeave;

  /** @param {{ element: HTMLElement, drawer: HTMLElement, announce: Announce }} page */
  constructor({ element, drawer, announce }) {
    this.element = element;
    this.drawer = drawer;
    this.announce = announce;
    this.text = within(element, ".toast-text");
    this.button = within(element, ".toast-action");
    within(element, ".toast-close").addEventListener("click", () => this.hide());
    this.button.addEventListener("click", () => this.#act());
    element.addEventListener("pointerenter", () => this.#hold());
    element.addEventListener("focusin", () => this.#hold());
    element.addEventListener("pointerleave", () => this.#wait());
    element.addEventListener("focusout", () => this.#wait());
    drawer.addEventListener("toggle", () => this.#move());
  }

  /**
   * Show a notice. `undo` is called by its button; `onLeave` is called when the notice is hidden
   * while it has the focus.
   * @param {string} text
   * @param {{ undo?: () => void, onLeave?: () => void }} [at]
   */
  show(text, { undo, onLeave } = {}) {
    this.#undo = undo;
    this.#onLeave = onLeave;
    this.text.textContent = text;
    this.button.hidden = !undo;
    this.#open();
    this.announce(text);
    this.#wait();
  }

  /** Whether a notice is shown whose action can be undone. */
  get offersUndo() {
    return !this.button.hidden && this.element.matches(":popover-open");
  }

  /** Move the focus to the undo button. */
  focus() {
    this.button.focus();
  }

  hide() {
    clearTimeout(this.#timer);
    const hadFocus = this.element.contains(document.activeElement);
    this.element.hidePopover();
    if (hadFocus) this.#onLeave?.();
  }

  #act() {
    this.hide();
    this.#undo?.();
  }

  /** Inside the open drawer, else in the body: a click outside the drawer would close it. */
  #open() {
    const isDrawn = this.drawer.matches(":popover-open");
    this.element.hidePopover();
    (isDrawn ? this.drawer : document.body).append(this.element);
    this.element.showPopover();
  }

  /** Move the notice when the drawer opens or closes: content of a closed drawer is hidden. */
  #move() {
    if (!this.element.matches(":popover-open")) return;
    const focused = /** @type {HTMLElement | null} */ (document.activeElement);
    const hadFocus = this.element.contains(focused);
    this.#open();
    if (hadFocus) focused?.focus();
  }

  #hold() {
    clearTimeout(this.#timer);
  }

  #wait() {
    this.#hold();
    if (this.element.matches(":focus-within")) return;
    this.#timer = setTimeout(() => this.hide(), SHOWN_MS);
  }

  /**
   * Escape closes the notice if the focus is inside.
   * @param {KeyboardEvent} event
   */
  press(event) {
    if (event.key !== "Escape" || !closest(event, ".toast")) return false;
    this.hide();
    return true;
  }
}
