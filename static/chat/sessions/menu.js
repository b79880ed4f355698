/**
 * The menu with actions for a conversation; dispatches `choose` (detail: the button that opened it,
 * and `action` as named by the item).
 */

import { all, closest } from "../page/elements.js";

const MARGIN = 8;

export class SessionMenu extends /** @type {Emitter<{ choose: { button: HTMLElement, action: string } }>} */ (
  EventTarget
) {
  /** @type {HTMLElement} */
  button = document.body;

  /**
   * `describe` returns the conversation of a button: whether it is `archived` and `pinned`.
   * @param {HTMLElement} element
   * @param {(button: HTMLElement) => { archived: boolean, pinned: boolean }} describe
   */
  constructor(element, describe) {
    super();
    this.element = element;
    this.describe = describe;
    document.addEventListener("click", (event) => this.#aim(event), true);
    element.addEventListener("beforetoggle", ({ newState }) => this.#toggle(newState === "open"));
    element.addEventListener("toggle", ({ newState }) => newState === "open" && this.#step(0));
    element.addEventListener("click", (event) => this.#choose(event));
    addEventListener("resize", () => this.isOpen && this.#place());
  }

  hide() {
    if (this.isOpen) this.element.hidePopover();
  }

  get isOpen() {
    return this.element.matches(":popover-open");
  }

  get #items() {
    return all(this.element, "[role=menuitem]:not([hidden])");
  }

  /**
   * Before a button opens the menu, note which conversation it is for.
   * @param {Event} event
   */
  #aim(event) {
    const button = closest(event, `[popovertarget="${this.element.id}"]`);
    if (!button) return;
    if (button !== this.button) this.hide();
    this.button = button;
  }

  /** @param {boolean} isOpen */
  #toggle(isOpen) {
    this.button.setAttribute("aria-expanded", String(isOpen));
    if (!isOpen) return;
    const { archived, pinned } = this.describe(this.button);
    /** @type {Record<string, boolean>} */
    const hidden = { archive: archived, unarchive: !archived, pin: pinned, unpin: !pinned };
    for (const item of all(this.element, "[data-manage]")) {
      item.hidden = hidden[item.dataset.manage ?? ""] ?? false;
    }
    this.#place();
  }

  /** Below its button, or above it if there is more room. */
  #place() {
    const { style } = this.element;
    const { top, bottom, left, right } = this.button.getBoundingClientRect();
    const isBelow = top < innerHeight / 2;
    const isLeft = (left + right) / 2 < innerWidth / 2;
    style.top = isBelow ? `${bottom + MARGIN / 2}px` : "auto";
    style.bottom = isBelow ? "auto" : `${innerHeight - top + MARGIN / 2}px`;
    style.left = isLeft ? `max(${MARGIN}px, min(${left}px, 100vw - 16rem - ${MARGIN}px))` : "auto";
    const beyond = document.documentElement.clientWidth - right;
    style.right = isLeft
      ? "auto"
      : `max(${MARGIN}px, min(${beyond}px, 100vw - 16rem - ${MARGIN}px))`;
    style.maxHeight = `${(isBelow ? innerHeight - bottom : top) - 2 * MARGIN}px`;
  }

  /**
   * Arrow keys, Home and End move through the open menu.
   * @param {KeyboardEvent} event
   */
  press(event) {
    if (!this.element.contains(/** @type {Node} */ (event.target))) return false;
    const place = this.#items.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    /** @type {Record<string, number>} */
    const steps = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: -1 };
    if (event.key === "Tab") this.hide();
    if (!(event.key in steps)) return false;
    event.preventDefault();
    this.#step(steps[event.key]);
    return true;
  }

  /** @param {number} place */
  #step(place) {
    const items = this.#items;
    items.at(place % items.length)?.focus();
  }

  /** @param {Event} event */
  #choose(event) {
    const item = closest(event, "[role=menuitem]");
    if (!item) return;
    const { button } = this;
    this.hide();
    const action = item.dataset.manage;
    if (action) this.dispatchEvent(new CustomEvent("choose", { detail: { button, action } }));
  }
}
