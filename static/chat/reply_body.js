/**
 * What a reply consists of: text, steps, thoughts and handovers, in the order of its parts.
 *
 * While it streams, text is only ever appended; when it has ended, the server's sanitised HTML
 * takes its place.
 */

import { updateApproval } from "./approval.js";
import { fromTemplate, setText } from "./elements.js";
import { textsOf } from "./parts.js";
import { fill, nameOf, words } from "./words.js";

export class ReplyBody {
  /** `shown`: the parts that the server has rendered in `element`, if they are known. */
  constructor(element, shown = []) {
    this.element = element;
    this.shown = shown.map((part) => ({ type: part.type, length: part.text?.length ?? 0 }));
    this.html = null;
  }

  clear() {
    this.element.replaceChildren();
    this.shown = [];
    this.html = null;
  }

  /** Show `parts` while they grow. */
  grow(parts) {
    if (this.html !== null || this.shown.length > parts.length) this.clear();
    parts.forEach((part, index) => this.#growPart(part, index));
  }

  /** Show the finished reply. */
  finish(parts, html) {
    if (html === this.html) return;
    this.clear();
    this.html = html;
    const chunks = splitHtml(html, textsOf(parts).length);
    for (const part of parts) {
      if (part.type === "text") this.element.append(...chunks.splice(0, 1));
      else this.#update(this.#append(part), part);
    }
  }

  #growPart(part, index) {
    if (this.shown[index] && this.shown[index].type !== part.type) this.clear();
    const element = this.element.children[index] ?? this.#append(part);
    this.shown[index] ??= { type: part.type, length: 0 };
    this.#update(element, part, this.shown[index]);
  }

  #append(part) {
    const element = this.#make(part.type);
    this.element.append(element);
    return element;
  }

  #make(type) {
    if (type === "tool") return fromTemplate("step-template");
    if (type === "approval") return fromTemplate("approval-template");
    if (type === "reasoning") return fromTemplate("reasoning-template");
    if (type === "agent") return fromTemplate("agent-template");
    const element = document.createElement("div");
    element.className = "plain";
    return element;
  }

  #update(element, part, shown = { length: 0 }) {
    if (part.type === "tool") {
      updateStep(element, part);
      return;
    }
    if (part.type === "approval") {
      updateApproval(element, part);
      return;
    }
    if (part.type === "agent") {
      setText(element, fill(words.takes_over, { agent: nameOf(part.name) }));
      return;
    }
    const target = element.querySelector(".reasoning-text") ?? element;
    if (part.text.length > shown.length) target.append(part.text.slice(shown.length));
    shown.length = part.text.length;
  }
}

/** The HTML of each text part; one for all where the server has not told them apart. */
function splitHtml(html, count) {
  const template = document.createElement("template");
  template.innerHTML = html;
  const chunks = [...template.content.children].filter((child) => child.matches(".text-part"));
  const sources = chunks.length === count ? chunks : [template.content];
  return sources.map((source) => {
    const element = document.createElement("div");
    element.className = "rendered";
    element.append(...source.childNodes);
    return element;
  });
}

function updateStep(element, part) {
  const isMoving = part.status === "progress";
  element.dataset.status = part.status;
  setText(element.querySelector(".step-name"), stepLabel(part));
  setText(element.querySelector(".step-note"), isMoving ? (part.progress ?? "") : "");
  setText(element.querySelector(".step-arguments"), part.arguments ?? "");
  setText(element.querySelector(".step-output"), part.output ?? "");
  const bar = element.querySelector("progress");
  bar.hidden = !isMoving || part.fraction === undefined;
  bar.value = part.fraction ?? 0;
}

/** What a step does or has done and, when it has ended, how long that took. */
function stepLabel({ status, name, summary, duration_ms }) {
  const label = fill(words.steps[status], { name: name.replaceAll("_", " ") });
  const said = status === "finished" && summary ? summary : label;
  if (duration_ms === undefined) return said;
  return fill(words.took, { step: said, seconds: (duration_ms / 1_000).toFixed(1) });
}
