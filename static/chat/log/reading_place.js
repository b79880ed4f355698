/**
 * Restores the reading position after a reload of the tab, or goes to the message that a link
 * names.
 */

import { all } from "../page/elements.js";

const KEY = "agentsite.place.";
const MAX_PAGES = 20;
const LINKED_PX = 48;

export class ReadingPlace {
  /** @param {{ transcript: Transcript, scroller: HTMLElement, earlier: MoreMessages }} at */
  constructor({ transcript, scroller, earlier }) {
    this.transcript = transcript;
    this.scroller = scroller;
    this.earlier = earlier;
    addEventListener("pagehide", () => this.#store());
  }

  /** Return to the stored position; loads earlier pages until its message is there. */
  async restore() {
    const linked = document.getElementById(location.hash.slice(1));
    if (linked?.matches(".message")) return this.#goTo(linked);
    const place = this.#read();
    if (!place) return;
    this.transcript.isFollowing = false;
    for (let pages = 0; !this.#find(place.id) && pages < MAX_PAGES; pages += 1) {
      if (!(await this.earlier.load())) break;
    }
    const element = this.#find(place.id);
    if (element) this.scroller.scrollTop += this.#offsetOf(element) - place.offset;
    else this.transcript.follow();
  }

  /**
   * Go to the message that a link names; the hash is removed so that a later reload restores the
   * position of that time.
   * @param {HTMLElement} message
   */
  #goTo(message) {
    history.replaceState(history.state, "", location.pathname + location.search);
    this.transcript.hold(message.dataset.messageId ?? "", this.#top + LINKED_PX);
    message.toggleAttribute("data-linked", true);
    message.tabIndex = -1;
    message.focus({ preventScroll: true });
  }

  #store() {
    const shown = all(this.scroller, ".message");
    const element = shown.find((message) => message.getBoundingClientRect().bottom > this.#top);
    const isReading = element && !this.transcript.isFollowing;
    const place = { id: element?.dataset.messageId, offset: element && this.#offsetOf(element) };
    try {
      if (isReading) sessionStorage.setItem(keyOf(), JSON.stringify(place));
      else sessionStorage.removeItem(keyOf());
    } catch {
      // Storage is blocked: the page opens at its end.
    }
  }

  #read() {
    try {
      return JSON.parse(sessionStorage.getItem(keyOf()) ?? "null");
    } catch {
      return null;
    }
  }

  get #top() {
    return this.scroller.getBoundingClientRect().top;
  }

  /** @param {Element} element */
  #offsetOf(element) {
    return element.getBoundingClientRect().top - this.#top;
  }

  /** @param {string} id */
  #find(id) {
    return this.scroller.querySelector(`[data-message-id="${CSS.escape(id)}"]`);
  }
}

function keyOf() {
  return KEY + location.pathname + location.search;
}
