/** Parts of a reply other than text: tool steps, reasoning, handovers, and those of no known type. */

import { fromTemplate, setText, within } from "../page/elements.js";
import { describeStep, nameOf } from "../page/labels.js";
import { fill, words } from "../page/words.js";

/** One tool call: a line that opens to show details. */
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

/** Reasoning of a model, collapsed. */
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

/** A handover to another agent. */
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

/** A part of a type that only a newer server and page know. */
export class UnknownPart {
  /** @param {HTMLElement} [element] */
  constructor(element) {
    this.element = element ?? fromTemplate("agent-template");
  }

  grow() {
    setText(this.element, words.unknown_part);
  }
}
