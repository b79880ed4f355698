/**
 * The title of the conversation and of the tab, which shows activity while the tab is in the
 * background.
 */

import { data, fill, words } from "./words.js";

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
   * Show whether a reply is being written.
   * @param {boolean} isBusy
   */
  setBusy(isBusy) {
    if (isBusy === this.#isBusy) return;
    this.#isBusy = isBusy;
    this.#show();
  }

  /** Announce the end of a reply until the user looks at the page. */
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
    const shown = fill(this.#isBusy ? busy : this.#isNew ? replied : plain, {
      title,
      site: data.site,
    });
    if (document.title !== shown) document.title = shown;
  }
}
