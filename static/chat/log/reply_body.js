/** The body of a reply: the views of its parts, in their order. */

import { textsOf } from "../conversation/parts.js";
import { HandoverPart, ReasoningPart, StepPart, UnknownPart } from "./activity_parts.js";
import { ApprovalPart } from "./approval.js";
import { TextPart } from "./text_part.js";

/**
 * @typedef {TextPart | ReasoningPart | StepPart | ApprovalPart | HandoverPart | UnknownPart}
 *   PartView
 */

/** @type {Record<Part["type"], new (element: HTMLElement | undefined, part: any) => PartView>} */
const KINDS = {
  text: TextPart,
  reasoning: ReasoningPart,
  tool: StepPart,
  approval: ApprovalPart,
  agent: HandoverPart,
};

export class ReplyBody {
  /** @type {{ type: Part["type"], view: PartView }[]} */
  #shown;

  /**
   * @param {HTMLElement} element
   * @param {Part[]} [shown] the parts that the server has rendered in `element`, if they are known
   */
  constructor(element, shown = []) {
    this.element = element;
    const children = /** @type {HTMLElement[]} */ ([...element.children]);
    this.#shown = shown.map((part, index) => this.#viewOf(part, children[index]));
  }

  clear() {
    for (const { view } of this.#shown) if (view instanceof TextPart) view.stop();
    this.element.replaceChildren();
    this.#shown = [];
  }

  /**
   * Show `parts` while they grow.
   * @param {Part[]} parts
   */
  grow(parts) {
    this.#fit(parts);
    for (const [index, part] of parts.entries()) {
      this.#grow(index, part, index === parts.length - 1);
    }
  }

  /**
   * @param {number} index
   * @param {Part} part
   * @param {boolean} [isLast]
   */
  #grow(index, part, isLast) {
    const view = /** @type {{ grow(part: Part, isLast?: boolean): void }} */ (
      this.#shown[index].view
    );
    view.grow(part, isLast);
  }

  /**
   * Show the finished reply; `html` is the server's, if it has arrived.
   * @param {Part[]} parts
   * @param {string | undefined} html
   */
  finish(parts, html) {
    this.#fit(parts);
    const chunks = html === undefined ? [] : chunksOf(html, textsOf(parts).length);
    parts.forEach((part, index) => {
      const { view } = this.#shown[index];
      if (view instanceof TextPart && part.type === "text") view.finish(part, chunks.shift());
      else this.#grow(index, part);
    });
  }

  /**
   * Make a view for each part; if the types of shown parts differ, start from nothing.
   * @param {Part[]} parts
   */
  #fit(parts) {
    const isOther = this.#shown.some(({ type }, index) => type !== parts[index]?.type);
    const isUnknown = this.element.childElementCount > this.#shown.length;
    if (isOther || isUnknown) this.clear();
    for (const part of parts.slice(this.#shown.length)) this.#shown.push(this.#viewOf(part));
  }

  /**
   * @param {Part} part
   * @param {HTMLElement} [element]
   */
  #viewOf(part, element) {
    const View = Object.hasOwn(KINDS, part.type) ? KINDS[part.type] : UnknownPart;
    const view = new View(element, part);
    if (!element) this.element.append(view.element);
    return { type: part.type, view };
  }
}

/**
 * Split the HTML into a chunk for each text part; a single chunk if the server has not marked them.
 * @param {string} html
 * @param {number} count
 * @returns {ParentNode[]}
 */
function chunksOf(html, count) {
  const template = document.createElement("template");
  template.innerHTML = html;
  const chunks = [...template.content.children].filter((child) => child.matches(".text-part"));
  return chunks.length === count ? chunks : [template.content];
}
