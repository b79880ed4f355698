/**
 * What can be done to a conversation, in a menu that its button opens; says `choose` (detail: the
 * button, and `action` as its item names it).
 */

import { apiOf } from "./api.js";

const MARGIN = 8;

export class SessionMenu extends EventTarget {
  /** `describe` tells of a button: the conversation's `id` and whether it is `archived`. */
  constructor(element, describe) {
    super();
    Object.assign(this, { element, describe });
    document.addEventListener("click", (event) => this.#aim(event), true);
    element.addEventListener("beforetoggle", ({ newState }) => this.#toggle(newState === "open"));
    element.addEventListener("toggle", ({ newState }) => newState === "open" && this.#step(0));
    element.addEventListener("keydown", (event) => this.#press(event));
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
    return [...this.element.querySelectorAll("[role=menuitem]:not([hidden])")];
  }

  /** Before the press of a button opens the menu: for which conversation that is. */
  #aim(event) {
    const button = event.target.closest(`[popovertarget="${this.element.id}"]`);
    if (!button) return;
    if (button !== this.button) this.hide();
    this.button = button;
  }

  #toggle(isOpen) {
    this.button.setAttribute("aria-expanded", String(isOpen));
    if (!isOpen) return;
    const { id, archived } = this.describe(this.button);
    for (const item of this.element.querySelectorAll("[data-manage]")) {
      const { manage } = item.dataset;
      item.hidden = manage === "archive" ? archived : manage === "unarchive" && !archived;
    }
    for (const link of this.element.querySelectorAll("[data-download]")) {
      link.href = apiOf(id, link.dataset.download);
    }
    this.#place();
  }

  /** Below its button or above it, where there is more room. */
  #place() {
    const { style } = this.element;
    const { top, bottom, left, right } = this.button.getBoundingClientRect();
    const isBelow = top < innerHeight / 2;
    const isLeft = (left + right) / 2 < innerWidth / 2;
    style.top = isBelow ? `${bottom + MARGIN / 2}px` : "auto";
    style.bottom = isBelow ? "auto" : `${innerHeight - top + MARGIN / 2}px`;
    style.left = isLeft ? `max(${MARGIN}px, min(${left}px, 100vw - 16rem - ${MARGIN}px))` : "auto";
    const beyond = document.documentElement.clientWidth - right;
    style.right = isLeft ? "auto" : `max(${MARGIN}px, min(${beyond}px, 100vw - 16rem - ${MARGIN}px))`;
    style.maxHeight = `${(isBelow ? innerHeight - bottom : top) - 2 * MARGIN}px`;
  }

  #press(event) {
    const items = this.#items;
    const place = items.indexOf(document.activeElement);
    const steps = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: -1 };
    if (event.key === "Tab") this.hide();
    if (!(event.key in steps)) return;
    event.preventDefault();
    this.#step(steps[event.key]);
  }

  #step(place) {
    const items = this.#items;
    items.at(place % items.length).focus();
  }

  #choose(event) {
    const item = event.target.closest("[role=menuitem]");
    if (!item) return;
    const { button } = this;
    this.hide();
    const action = item.dataset.manage;
    if (action) this.dispatchEvent(new CustomEvent("choose", { detail: { button, action } }));
  }
}
