/** Loads messages beyond one end of the log, a page at a time, when the user scrolls there. */

import { loadHistory } from "../page/api.js";
import { within } from "../page/elements.js";

const AHEAD = "1000px 0px";

export class MoreMessages {
  /** @type {Promise<boolean> | null} */
  #loading = null;

  /**
   * `element` holds the link to the next page and has the same id in that page; `add` adds the
   * messages of a loaded page.
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
   * Continue after that page.
   * @param {LoadedPage} at
   */
  goOnFrom({ page }) {
    this.element.replaceChildren(...(page.getElementById(this.element.id)?.childNodes ?? []));
    this.#watch();
  }

  /** There are no more messages. */
  clear() {
    this.element.replaceChildren();
    this.#watch();
  }

  /** Observe anew: a new observation also reports an element that is in sight already. */
  #watch() {
    this.watcher.disconnect();
    if (this.address) this.watcher.observe(this.element);
  }

  /** Load one page; false if there is none or it cannot be loaded now. */
  async load() {
    if (!this.address) return false;
    this.#loading ??= this.#load().finally(() => {
      this.#loading = null;
    });
    return this.#loading;
  }

  /** Load all pages; false if one cannot be loaded now. */
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
