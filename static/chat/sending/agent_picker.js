/** Selects the agent that a new conversation begins with, and describes it. */

import { all, byId, setText, within } from "../page/elements.js";

export class AgentPicker {
  /** @param {HTMLElement} element */
  constructor(element) {
    this.choices = [...element.querySelectorAll("input")];
    this.cards = all(element, "[data-agent]");
    element.addEventListener("change", () => this.#introduce());
    this.#introduce();
  }

  /** The name of the selected agent; undefined if there is no choice. */
  get chosen() {
    return this.choices.find((choice) => choice.checked)?.value;
  }

  #introduce() {
    const { chosen } = this;
    if (!chosen) return;
    for (const card of this.cards) {
      card.hidden = card.dataset.agent !== chosen;
      if (!card.hidden)
        setText(byId("composer-agent"), within(card, "h2").firstChild?.textContent ?? "");
    }
  }
}
