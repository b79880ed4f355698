/** Earlier messages, which come a page at a time as one scrolls up to them. */

import { loadHistory } from "./history.js";

const AHEAD = "1000px 0px 0px";

export class EarlierMessages {
  /** `element` holds the link to the page before; `add(history)` takes in what comes. */
  constructor({ element, scroller }, add) {
    Object.assign(this, { element, add });
    this.watcher = new IntersectionObserver(([entry]) => entry.isIntersecting && this.load(), {
      root: scroller,
      rootMargin: AHEAD,
    });
    this.#watch();
  }

  get address() {
    return this.element.querySelector("a")?.href ?? "";
  }

  /** Go on before the page that `element` belongs to. */
  goOnFrom(element) {
    this.element.replaceChildren(...(element?.childNodes ?? []));
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
    this.loading ??= this.#load();
    const isLoaded = await this.loading;
    this.loading = null;
    return isLoaded;
  }

  async #load() {
    try {
      const earlier = await loadHistory(this.address);
      this.add(earlier);
      this.goOnFrom(earlier.earlier);
      return true;
    } catch {
      return false;
    }
  }
}
