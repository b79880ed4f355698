/**
 * Shows text at an even pace, however unevenly it arrives.
 *
 * Text is shown over the `SPREAD_MS` after its arrival, at the latest after `LATEST_MS`; at once if
 * the page is hidden or the user prefers reduced motion.
 */

const SPREAD_MS = 160;
const LATEST_MS = 280;
/** After a slow draw, pause this many times as long as it took. */
const SHARE = 4;
const CHEAP_MS = 8;

export class Pace {
  #target = "";
  #shown = 0;
  /** @type {{ at: number, length: number }[]} */
  #late = [];
  #drawnAt = 0;
  #cost = 0;
  #frame = 0;

  /**
   * `draw(text)` shows the text up to the current place.
   * @param {(text: string) => void} draw
   */
  constructor(draw) {
    this.draw = draw;
  }

  /**
   * Note that `text` is shown already.
   * @param {string} text
   */
  skip(text) {
    this.#target = text;
    this.#shown = text.length;
  }

  /**
   * Show the new end of `text`, over time.
   * @param {string} text
   */
  follow(text) {
    if (text.length === this.#target.length) return;
    this.#target = text;
    this.#late.push({ at: performance.now() + LATEST_MS, length: text.length });
    // Animation frames do not fire on a hidden page.
    if (isHidden()) this.#step(performance.now());
    else this.#frame ||= requestAnimationFrame((now) => this.#step(now));
  }

  stop() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
  }

  /** @param {number} now */
  #step(now) {
    this.stop();
    if (this.#isDue(now)) this.#show(now, this.#next(now));
    if (this.#shown < this.#target.length) {
      this.#frame = requestAnimationFrame((next) => this.#step(next));
    }
  }

  /** @param {number} now */
  #isDue(now) {
    return isHidden() || this.#cost < CHEAP_MS || now - this.#drawnAt > SHARE * this.#cost;
  }

  /** @param {number} now */
  #next(now) {
    if (isHidden() || isStill()) return this.#target.length;
    while (this.#late.length > 1 && this.#late[1].at <= now) this.#late.shift();
    const owed = this.#late[0]?.at <= now ? this.#late[0].length : 0;
    const passed = Math.min(SPREAD_MS, this.#shown ? now - this.#drawnAt : SPREAD_MS / 4);
    const rest = this.#target.length - this.#shown;
    return Math.max(owed, this.#shown + Math.ceil((rest * passed) / SPREAD_MS));
  }

  /**
   * @param {number} now
   * @param {number} length
   */
  #show(now, length) {
    const isInPair = /[\uD800-\uDBFF]/.test(this.#target[length - 1]);
    this.#shown = isInPair ? Math.min(length + 1, this.#target.length) : length;
    const begun = performance.now();
    this.draw(this.#target.slice(0, this.#shown));
    this.#cost = performance.now() - begun;
    this.#drawnAt = now;
  }
}

function isHidden() {
  return document.visibilityState !== "visible";
}

function isStill() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}
