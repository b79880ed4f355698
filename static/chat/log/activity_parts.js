/** Parts of a reply other than text: tool steps, reasoning, handovers, and those of no known type. */

import { finishBlock } from "../markdown/finish/blocks.js";
import { loadMarkdown, markdown } from "../markdown/loading.js";
import { all, fromTemplate, setText, within } from "../page/elements.js";
import { describeStep, nameOf } from "../page/labels.js";
import { fill, words } from "../page/words.js";
import { showPairs } from "./pairs.js";

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
    showPairs(within(this.element, ".step-arguments"), given ?? "");
    showPairs(within(this.element, ".step-output"), output ?? "");
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

/** Reasoning of a model, collapsed; it is rendered as Markdown when it is opened. */
export class ReasoningPart {
  #isGrowing = false;
  /** @type {import("../markdown/stream.js").MarkdownStream | null} */
  #stream = null;
  #plain;

  /**
   * @param {HTMLElement | undefined} element
   * @param {Pick<TextOrThoughts, "text">} part
   */
  constructor(element, { text }) {
    this.element = /** @type {HTMLDetailsElement} */ (
      element ?? fromTemplate("reasoning-template")
    );
    this.box = within(this.element, ".reasoning-text");
    this.text = element ? text : "";
    this.#plain = document.createTextNode(this.text);
    this.box.replaceChildren(this.#plain);
    this.element.addEventListener("toggle", () => this.#show());
  }

  /**
   * @param {TextOrThoughts} part
   * @param {boolean} [isLast]
   */
  grow({ text }, isLast = false) {
    if (text === this.text && isLast === this.#isGrowing) return;
    this.#isGrowing = isLast;
    if (!this.#stream) this.#plain.appendData(text.slice(this.text.length));
    this.text = text;
    this.#show();
  }

  async #show() {
    if (!this.element.open || (!markdown() && !(await loadMarkdown()))) return;
    this.#stream ??= this.#makeStream();
    if (this.#isGrowing) this.#stream.draw(this.text);
    else this.#stream.finish(this.text);
  }

  #makeStream() {
    const { MarkdownStream } = /** @type {typeof import("../markdown/stream.js")} */ (markdown());
    this.box.replaceChildren();
    this.box.classList.add("rendered");
    return new MarkdownStream(this.box, (block) => finishBlock(block));
  }
}

/**
 * Render the thoughts that the server has shown in `root` as Markdown, once they are opened.
 * @param {ParentNode} root
 */
export function adoptThoughts(root) {
  for (const element of all(root, ".reasoning")) {
    new ReasoningPart(element, { text: within(element, ".reasoning-text").textContent });
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
