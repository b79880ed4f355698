/**
 * Selects the agent that answers the next message: the welcome of a new conversation describes each
 * one, and the message box has the same choice at any time.
 */

import { all } from "../page/elements.js";

export class AgentPicker {
  /**
   * @param {HTMLElement} welcome
   * @param {HTMLSelectElement | null} select null: there is no choice
   */
  constructor(welcome, select) {
    this.welcome = welcome;
    this.select = select;
    welcome.addEventListener("change", () => this.choose(this.#checked));
    select?.addEventListener("change", () => this.choose(select.value));
    this.choose(this.#checked);
  }

  /** The name of the selected agent; undefined if there is no choice. */
  get chosen() {
    return this.select?.value;
  }

  get #checked() {
    return this.#choices.find((choice) => choice.checked)?.value;
  }

  // Another conversation brings a welcome of its own.
  get #choices() {
    return [...this.welcome.querySelectorAll("input")];
  }

  /**
   * Let this agent answer the next message.
   * @param {string | undefined} name
   */
  choose(name) {
    if (!name) return;
    if (this.select) this.select.value = name;
    for (const choice of this.#choices) choice.checked = choice.value === name;
    for (const card of all(this.welcome, "[data-agent]")) card.hidden = card.dataset.agent !== name;
  }
}
