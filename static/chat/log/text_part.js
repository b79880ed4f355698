/** A text part of a reply: draws Markdown at an even pace. */

import { finishBlock } from "../markdown/finish/blocks.js";
import { loadMarkdown, markdown } from "../markdown/loading.js";
import { Pace } from "../markdown/pace.js";

export class TextPart {
  /** @type {import("../markdown/stream.js").MarkdownStream | null} */
  #stream = null;
  /** The text that the server's HTML in the element shows. */
  #shown;
  /** What was to be shown last. */
  #latest = "";

  /**
   * `element`: given if the server has rendered `part` already.
   * @param {HTMLElement | undefined} element
   * @param {TextOrThoughts} part
   */
  constructor(element, part) {
    this.element = element ?? document.createElement("div");
    this.element.className = "rendered";
    this.text = part.text;
    this.isFinished = false;
    this.#shown = element ? part.text : "";
    this.pace = new Pace((text) => this.#draw(text));
    if (element) this.pace.skip(part.text);
    this.#begin();
  }

  /** Make the stream, now or when it has been loaded; then show what has come meanwhile. */
  async #begin() {
    const isLoaded = markdown() !== null || (await loadMarkdown());
    if (this.#stream || this.isFinished) return;
    if (isLoaded) {
      this.#makeStream();
      if (this.#latest) this.#draw(this.#latest);
    } else if (this.#latest) {
      this.element.replaceChildren(this.#latest);
    }
  }

  /** The server's HTML is replaced by the same text, drawn out of sight, which can grow. */
  #makeStream() {
    const { MarkdownStream } = /** @type {typeof import("../markdown/stream.js")} */ (markdown());
    const shown = document.createElement("div");
    this.#stream = new MarkdownStream(shown, (block) => finishBlock(block));
    if (this.#shown) this.#stream.draw(this.#shown);
    this.element.replaceChildren(...shown.childNodes);
    this.#stream.element = this.element;
  }

  /**
   * Draw and lay out: reading the height makes layout part of the cost that the pace measures.
   * @param {string} text
   */
  #draw(text) {
    this.#latest = text;
    if (this.#stream) {
      this.#stream.draw(text);
      this.#stream.drawFormulas();
    } else {
      this.#begin();
    }
    return this.element.offsetHeight;
  }

  /**
   * @param {TextOrThoughts} at
   * @param {boolean | undefined} isLast
   */
  grow({ text }, isLast) {
    this.text = text;
    this.pace.follow(text);
    this.element.toggleAttribute("data-growing", isLast);
  }

  /**
   * @param {TextOrThoughts} at
   * @param {ParentNode | undefined} blocks
   */
  finish({ text }, blocks) {
    this.stop();
    this.element.removeAttribute("data-growing");
    if (this.isFinished && this.text === text && !blocks) return;
    this.text = text;
    this.isFinished = true;
    this.#finish(text, blocks);
  }

  /**
   * @param {string} text
   * @param {ParentNode | undefined} blocks
   */
  async #finish(text, blocks) {
    if (!this.#stream && !blocks) {
      if (!markdown()) this.element.replaceChildren(text);
      if (markdown() || (await loadMarkdown())) this.#makeStream();
    }
    if (this.#stream) {
      this.#stream.finish(text, blocks);
    } else {
      this.element.replaceChildren(...(blocks?.childNodes ?? [text]));
      finishBlock(this.element);
    }
  }

  stop() {
    this.pace.stop();
  }
}
