/**
 * Keeps the reader's place: after a reload of the tab, by a link to a message, and when a message
 * gets another element.
 */

import { all } from "../page/elements.js";

const KEY = "agentsite.place.";
const MAX_PAGES = 20;
const LINKED_PX = 48;
const SECTIONS = ".body, .actions, .feedback, .summary, .note";

export class ReadingPlace {
  /** @param {{ transcript: Transcript, scroller: HTMLElement, earlier: MoreMessages }} at */
  constructor({ transcript, scroller, earlier }) {
    this.transcript = transcript;
    this.scroller = scroller;
    this.earlier = earlier;
    addEventListener("pagehide", () => this.store());
  }

  /** Return to the stored position; loads earlier pages until its message is there. */
  async restore() {
    const linked = document.getElementById(location.hash.slice(1));
    if (linked?.matches(".message")) return this.#goTo(linked);
    const place = this.#read();
    if (!place) return;
    this.transcript.isFollowing = false;
    const address = currentAddress();
    for (let pages = 0; !this.#find(place.id) && pages < MAX_PAGES; pages += 1) {
      if (!(await this.earlier.load())) break;
      if (address !== currentAddress()) return;
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

  /**
   * Store the position in what is shown, which has that address.
   * @param {string} [address]
   */
  store(address = currentAddress()) {
    const shown = all(this.scroller, ".message");
    const element = shown.find((message) => message.getBoundingClientRect().bottom > this.#top);
    const isReading = element && !this.transcript.isFollowing;
    const place = { id: element?.dataset.messageId, offset: element && this.#offsetOf(element) };
    try {
      if (isReading) sessionStorage.setItem(KEY + address, JSON.stringify(place));
      else sessionStorage.removeItem(KEY + address);
    } catch {
      // Storage is blocked: the page opens at its end.
    }
  }

  #read() {
    try {
      return JSON.parse(sessionStorage.getItem(KEY + currentAddress()) ?? "null");
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

function currentAddress() {
  return location.pathname + location.search;
}

/**
 * Open in `next` what is open in `shown`, and take over typed comments and reasons.
 * @param {HTMLElement} shown
 * @param {HTMLElement} next
 */
export function carryOver(shown, next) {
  const details = next.querySelectorAll("details");
  shown.querySelectorAll("details").forEach((one, index) => {
    if (one.open && details[index]) details[index].open = true;
  });
  const reasons = next.querySelectorAll("input");
  shown.querySelectorAll("input").forEach((one, index) => {
    if (reasons[index]) reasons[index].value = one.value;
  });
  const comment = shown.querySelector(":scope > .feedback");
  if (!comment) return;
  next.querySelector(":scope > .feedback")?.remove();
  next.querySelector(".actions")?.after(comment);
}

/**
 * Note where the focus is in the log; call the result to return it there.
 * @param {HTMLElement} log
 */
export function rememberFocus(log) {
  const focused = /** @type {HTMLElement} */ (document.activeElement);
  const article = focused.closest(".message");
  if (!article || !log.contains(article)) return () => {};
  const { id } = article;
  const section = focused.closest(SECTIONS);
  const place = section ? placeOf(section, focused) : -1;
  const name = section?.classList[0] ?? "";
  return () => {
    if (document.activeElement === focused) return;
    if (focused.isConnected) focused.focus({ preventScroll: true });
    else focusIn(document.getElementById(id), name, focused.localName, place);
  };
}

/**
 * @param {Element} section
 * @param {Element} element
 */
function placeOf(section, element) {
  return all(section, element.localName).indexOf(/** @type {HTMLElement} */ (element));
}

/**
 * Focus the element at that place in a section of a message or, without one, the message.
 * @param {HTMLElement | null} article
 * @param {string} section
 * @param {string} name
 * @param {number} place
 */
function focusIn(article, section, name, place) {
  if (!article) return document.getElementById("prompt")?.focus();
  const root = section && article.querySelector(`:scope > .${section}`);
  const element = root ? all(root, name)[place] : null;
  element?.focus({ preventScroll: true });
  if (document.activeElement === element) return;
  article.tabIndex = -1;
  article.focus({ preventScroll: true });
}
