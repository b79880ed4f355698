/** Messages beyond an end of the log, which come a page at a time as one scrolls there. */

import { loadHistory } from "../page/api.js";
import { within } from "../page/elements.js";

const AHEAD = "1000px 0px";

export class MoreMessages {
  /** @type {Promise<boolean> | null} */
  #loading = null;

  /**
   * `element` holds the link to the next page, and has the same id in that page; `add` takes in
   * what comes.
   * @param {{ element: HTMLElement, scroller: HTMLElement }} where
   * @param {(page: LoadedPage) => void} add
   */
  constructor({ element, scroller }, add) {
    this.element = element;
    this.add = add;
    this.watcher = new IntersectionObserver(([entry]) => entry.isIntersecting && this.load(), {
      root: scroller,
      rootMargin: AHEAD,
    });
    this.#watch();
  }

  get address() {
    return within(this.element, "a[data-page]")?.href ?? "";
  }

  /**
   * Go on where that page ends.
   * @param {LoadedPage} at
   */
  goOnFrom({ page }) {
    this.element.replaceChildren(...(page.getElementById(this.element.id)?.childNodes ?? []));
    this.#watch();
  }

  /** There is nothing more. */
  clear() {
    this.element.replaceChildren();
    this.#watch();
  }

  /** What is in sight now is told of anew. */
  #watch() {
    this.watcher.disconnect();
    if (this.address) this.watcher.observe(this.element);
  }

  /** Load one page; false when there is none, or it cannot be had now. */
  async load() {
    if (!this.address) return false;
    this.#loading ??= this.#load().finally(() => {
      this.#loading = null;
    });
    return this.#loading;
  }

  /** Load all that there is; false where that cannot be had now. */
  async loadAll() {
    while (this.address) if (!(await this.load())) return false;
    return true;
  }

  async #load() {
    const { address } = this;
    try {
      const more = await loadHistory(address);
      // Another branch may be shown by now.
      if (address !== this.address) return false;
      this.add(more);
      this.goOnFrom(more);
      return true;
    } catch {
      return false;
    }
  }
}
