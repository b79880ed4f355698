/** The title of the conversation, and of the tab: it tells what goes on behind it. */

import { fill, words } from "./words.js";

export class PageTitle {
  #isBusy = false;
  #isNew = false;

  /** @param {HTMLElement} heading */
  constructor(heading) {
    this.heading = heading;
    document.addEventListener("visibilitychange", () => this.#look());
  }

  /** @param {string} title */
  rename(title) {
    this.heading.textContent = title;
    this.#show();
  }

  /**
   * A reply is being written, or none is any more.
   * @param {boolean} isBusy
   */
  setBusy(isBusy) {
    if (isBusy === this.#isBusy) return;
    this.#isBusy = isBusy;
    this.#show();
  }

  /** A reply has ended: said until somebody looks. */
  tellReply() {
    this.#isNew = document.visibilityState !== "visible";
    this.#show();
  }

  #look() {
    if (document.visibilityState !== "visible" || !this.#isNew) return;
    this.#isNew = false;
    this.#show();
  }

  #show() {
    const title = this.heading.textContent;
    const { plain, busy, replied } = words.titles;
    const shown = fill(this.#isBusy ? busy : this.#isNew ? replied : plain, { title });
    if (document.title !== shown) document.title = shown;
  }
}
