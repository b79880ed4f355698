/** Which agent a new conversation begins with, and what is said about it. */

import { all } from "../page/elements.js";

export class AgentPicker {
  /** @param {HTMLElement} element */
  constructor(element) {
    this.choices = [...element.querySelectorAll("input")];
    this.cards = all(element, "[data-agent]");
    element.addEventListener("change", () => this.#introduce());
    this.#introduce();
  }

  /** The name of the agent; undefined where there is none to choose. */
  get chosen() {
    return this.choices.find((choice) => choice.checked)?.value;
  }

  #introduce() {
    const { chosen } = this;
    if (!chosen) return;
    for (const card of this.cards) card.hidden = card.dataset.agent !== chosen;
  }
}
