/** A text part of a reply: draws Markdown at an even pace. */

import { finishBlock } from "../markdown/blocks.js";
import { Pace } from "../markdown/pace.js";
import { MarkdownStream } from "../markdown/stream.js";

export class TextPart {
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
    this.stream = new MarkdownStream(this.element, finishBlock);
    this.pace = new Pace((text) => this.#draw(text));
    if (element) this.#adopt(part.text);
  }

  /**
   * Draw and lay out: reading the height makes layout part of the cost that the pace measures.
   * @param {string} text
   */
  #draw(text) {
    this.stream.draw(text);
    return this.element.offsetHeight;
  }

  /**
   * Replace the server's HTML by a stream of the same text, drawn out of sight, that can grow.
   * @param {string} text
   */
  #adopt(text) {
    const shown = document.createElement("div");
    this.stream = new MarkdownStream(shown, finishBlock);
    this.stream.draw(text);
    this.stream.element = this.element;
    this.element.replaceChildren(...shown.childNodes);
    this.pace.skip(text);
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
    this.stream.finish(text, blocks);
  }

  stop() {
    this.pace.stop();
  }
}
