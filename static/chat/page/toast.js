/** One short notice over the page, with what takes back the thing it tells of. */

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
   * `undo`, if there is one, is offered; `onLeave` is told when a focus inside has to go.
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

  /** The button that takes it back is where the keyboard goes on. */
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

  /** Over an open drawer it has to be in there: a click elsewhere would close that. */
  #open() {
    const isDrawn = this.drawer.matches(":popover-open");
    this.element.hidePopover();
    (isDrawn ? this.drawer : document.body).append(this.element);
    this.element.showPopover();
  }

  /** What is in a drawer goes out of sight with it. */
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
   * Escape closes it where the focus is inside.
   * @param {KeyboardEvent} event
   */
  press(event) {
    if (event.key !== "Escape" || !closest(event, ".toast")) return false;
    this.hide();
    return true;
  }
}
