/**
 * Spares the browser the layout and style of messages that are far from sight.
 *
 * They keep the exact height that they have had, so nothing moves. Once they come near, nothing
 * distinguishes them from others.
 */

const FAR = "3000px 0px";

export class FarMessages {
  #width = 0;

  /** @param {{ log: HTMLElement, scroller: HTMLElement }} at */
  constructor({ log, scroller }) {
    this.log = log;
    this.watcher = new IntersectionObserver((entries) => entries.forEach(sort), {
      root: scroller,
      rootMargin: FAR,
    });
    new ResizeObserver(() => this.#measure()).observe(log);
  }

  /** @param {Element} message */
  watch(message) {
    this.watcher.observe(message);
  }

  /** @param {Element} message */
  forget(message) {
    this.watcher.unobserve(message);
  }

  /** In another width all heights are others: look at all messages again. */
  #measure() {
    const { clientWidth } = this.log;
    if (clientWidth === this.#width) return;
    this.#width = clientWidth;
    for (const message of this.log.querySelectorAll(".message")) {
      this.forget(message);
      show(/** @type {HTMLElement} */ (message));
      this.watch(message);
    }
  }
}

/** @param {IntersectionObserverEntry} entry */
function sort({ target, isIntersecting, boundingClientRect: { height } }) {
  const message = /** @type {HTMLElement} */ (target);
  const { style } = message;
  if (isIntersecting) return show(message);
  const isGrowing = message.hasAttribute("data-live");
  if (isGrowing || style.contentVisibility || message.contains(document.activeElement)) return;
  style.containIntrinsicBlockSize = `${height}px`;
  style.contentVisibility = "auto";
}

/** @param {HTMLElement} message */
function show({ style }) {
  style.contentVisibility = "";
  style.containIntrinsicBlockSize = "";
}
