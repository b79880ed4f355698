/** What a reply consists of: text, steps, thoughts, requests and handovers, in the order of its parts. */

import { ApprovalPart } from "./approval.js";
import { HandoverPart } from "./handover_part.js";
import { textsOf } from "./parts.js";
import { ReasoningPart } from "./reasoning_part.js";
import { StepPart } from "./step_part.js";
import { TextPart } from "./text_part.js";

const KINDS = {
  text: TextPart,
  reasoning: ReasoningPart,
  tool: StepPart,
  approval: ApprovalPart,
  agent: HandoverPart,
};

export class ReplyBody {
  /** `shown`: the parts that the server has rendered in `element`, if they are known. */
  constructor(element, shown) {
    this.element = element;
    this.views = (shown ?? []).map((part, index) => this.#viewOf(part, element.children[index]));
  }

  clear() {
    for (const view of this.views) view.stop?.();
    this.element.replaceChildren();
    this.views = [];
  }

  /** Show `parts` while they grow. */
  grow(parts) {
    this.#fit(parts);
    parts.forEach((part, index) => this.views[index].grow(part, index === parts.length - 1));
  }

  /** Show the finished reply; `html` is the server's, where it has come. */
  finish(parts, html) {
    this.#fit(parts);
    const count = textsOf(parts).length;
    const chunks = html === undefined ? [] : chunksOf(html, count);
    parts.forEach((part, index) => {
      if (part.type === "text") this.views[index].finish(part, chunks.shift());
      else this.views[index].grow(part);
    });
  }

  /** Have a view for each part; those of other parts begin anew. */
  #fit(parts) {
    const isOther = this.views.some((view, index) => view.type !== parts[index]?.type);
    const isUnknown = this.element.childElementCount > this.views.length;
    if (isOther || isUnknown) this.clear();
    for (const part of parts.slice(this.views.length)) this.views.push(this.#viewOf(part));
  }

  #viewOf(part, element) {
    const view = new (KINDS[part.type] ?? StepPart)(element, part);
    if (!element) this.element.append(view.element);
    view.type = part.type;
    return view;
  }
}

/** The blocks of each text part; of all in one where the server has not told them apart. */
function chunksOf(html, count) {
  const template = document.createElement("template");
  template.innerHTML = html;
  const chunks = [...template.content.children].filter((child) => child.matches(".text-part"));
  return chunks.length === count ? chunks : [template.content];
}
