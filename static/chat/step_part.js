/** One use of a tool, in one line that opens. */

import { fromTemplate, setText } from "./elements.js";
import { fill, words } from "./words.js";

/** Shorter steps took no time worth telling. */
const NOTABLE_MS = 50;

export class StepPart {
  constructor(element) {
    this.element = element ?? fromTemplate("step-template");
  }

  grow(part) {
    const { status, progress, fraction, arguments: given, output } = part;
    const isMoving = status === "progress";
    const bar = this.#find("progress");
    this.element.dataset.status = status;
    setText(this.#find(".step-name"), labelOf(part));
    setText(this.#find(".step-note"), isMoving ? (progress ?? "") : "");
    setText(this.#find(".step-arguments"), given ?? "");
    setText(this.#find(".step-output"), output ?? "");
    bar.hidden = !isMoving || fraction === undefined;
    bar.value = fraction ?? 0;
  }

  #find(selector) {
    return this.element.querySelector(selector);
  }
}

/** What a step does or has done and, when it has ended, how long that took. */
function labelOf({ status, name, summary, duration_ms }) {
  const label = fill(words.steps[status], { name: name.replaceAll("_", " ") });
  const said = status === "finished" && summary ? summary : label;
  if (!(duration_ms >= NOTABLE_MS)) return said;
  return fill(words.took, { step: said, seconds: (duration_ms / 1_000).toFixed(1) });
}
