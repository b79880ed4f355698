/** What an agent does beside writing text: it uses a tool, thinks aloud, hands over. */

import { fromTemplate, setText, within } from "../page/elements.js";
import { describeStep, nameOf } from "../page/labels.js";
import { fill, words } from "../page/words.js";

/** One use of a tool, in one line that opens. */
export class StepPart {
  /** @param {HTMLElement} [element] */
  constructor(element) {
    this.element = element ?? fromTemplate("step-template");
  }

  /** @param {ToolPart} part */
  grow(part) {
    const { status, progress, fraction, arguments: given, output } = part;
    const isMoving = status === "progress";
    const bar = within(this.element, "progress");
    this.element.dataset.status = status;
    this.#setText(".step-name", describeStep(part));
    this.#setText(".step-note", isMoving ? progress : "");
    this.#setText(".step-arguments", given);
    this.#setText(".step-output", output);
    bar.hidden = !isMoving || fraction === undefined;
    bar.value = fraction ?? 0;
  }

  /**
   * @param {string} selector
   * @param {string | undefined} text
   */
  #setText(selector, text) {
    setText(within(this.element, selector), text ?? "");
  }
}

/** What a model thinks aloud, folded away. */
export class ReasoningPart {
  #length;

  /**
   * @param {HTMLElement | undefined} element
   * @param {TextOrThoughts} part
   */
  constructor(element, part) {
    this.element = element ?? fromTemplate("reasoning-template");
    this.#length = element ? part.text.length : 0;
  }

  /** @param {TextOrThoughts} part */
  grow({ text }) {
    if (text.length <= this.#length) return;
    within(this.element, ".reasoning-text").append(text.slice(this.#length));
    this.#length = text.length;
  }
}

/** One agent hands over to another. */
export class HandoverPart {
  /** @param {HTMLElement} [element] */
  constructor(element) {
    this.element = element ?? fromTemplate("agent-template");
  }

  /** @param {AgentPart} part */
  grow({ name }) {
    setText(this.element, fill(words.takes_over, { agent: nameOf(name) }));
  }
}
