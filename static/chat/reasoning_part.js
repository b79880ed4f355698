/** What a model thinks aloud, folded away. */

import { fromTemplate } from "./elements.js";

export class ReasoningPart {
  #length;

  constructor(element, part) {
    this.element = element ?? fromTemplate("reasoning-template");
    this.#length = element ? part.text.length : 0;
  }

  grow({ text }) {
    if (text.length <= this.#length) return;
    this.element.querySelector(".reasoning-text").append(text.slice(this.#length));
    this.#length = text.length;
  }
}
