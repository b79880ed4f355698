/**
 * The messages that wait for their turn, above the composer; says `change` (detail: the content
 * and metadata of a `queue` frame), which is prevented where that cannot be asked for now.
 */

import { fromTemplate, isComposing, setText } from "./elements.js";
import { moveBefore } from "./session_list.js";
import { fill } from "./words.js";

export class Queue extends EventTarget {
  constructor(element) {
    super();
    this.element = element;
    this.list = element.querySelector("ol");
    this.entries = [];
    element.addEventListener("click", (event) => this.#press(event));
    element.addEventListener("submit", (event) => this.#save(event));
    element.addEventListener("keydown", (event) => this.#escape(event));
  }

  /** Bring the list in line with `entries`; what is being edited stays as it is. */
  show(entries) {
    if (entries === this.entries) return;
    this.entries = entries;
    const ids = new Set(entries.map((entry) => entry.run_id));
    for (const line of [...this.list.children]) if (!ids.has(line.dataset.runId)) line.remove();
    entries.forEach((entry, place) => this.#place(entry, place));
    this.element.hidden = !entries.length;
    this.element.querySelector("[data-queue='clear']").hidden = entries.length < 2;
  }

  #place(entry, place) {
    const line = this.#find(entry.run_id) ?? this.#add(entry.run_id);
    if (this.list.children[place] !== line) moveBefore(this.list, line, this.list.children[place]);
    setText(line.querySelector(".queued-text"), entry.content);
    line.querySelector("[data-queue='edit']").hidden = entry.again;
    this.#showUp(line, place > 0);
    for (const button of line.querySelectorAll("[data-queue]")) {
      button.setAttribute("aria-label", fill(button.dataset.label, { text: entry.content }));
    }
  }

  /** The first line cannot go up: the keyboard that brought it there goes on beside that. */
  #showUp(line, isShown) {
    const up = line.querySelector("[data-queue='up']");
    const isLeft = !isShown && up === document.activeElement;
    up.hidden = !isShown;
    if (isLeft) this.#focus("[data-queue='edit']:not([hidden])", line);
  }

  #find(run_id) {
    return this.list.querySelector(`[data-run-id="${run_id}"]`);
  }

  #add(run_id) {
    const line = fromTemplate("queued-template");
    line.dataset.runId = run_id;
    this.list.append(line);
    return line;
  }

  #press(event) {
    const button = event.target.closest("[data-queue]");
    const line = button?.closest("li");
    switch (button?.dataset.queue) {
      case "up":
        return this.#change({ op: "move", ...idOf(line), position: this.#placeOf(line) - 1 });
      case "remove":
        this.#moveFocus(line);
        return this.#change({ op: "remove", ...idOf(line) });
      case "clear":
        this.#focus();
        return this.#change({ op: "clear" });
      case "edit":
        return this.#open(line);
      case "cancel":
        return this.#close(line);
    }
  }

  /** The place in the line, from 1. */
  #placeOf(line) {
    return 1 + [...this.list.children].indexOf(line);
  }

  #open(line) {
    const form = line.querySelector("form");
    form.elements.content.value = line.querySelector(".queued-text").textContent;
    line.toggleAttribute("data-editing", true);
    form.elements.content.focus();
  }

  #close(line) {
    line.removeAttribute("data-editing");
    line.querySelector("[data-queue='edit']").focus();
  }

  #save(event) {
    event.preventDefault();
    const line = event.target.closest("li");
    const content = event.target.elements.content.value;
    if (content.trim() && this.#change({ op: "edit", ...idOf(line) }, content)) this.#close(line);
  }

  #escape(event) {
    const line = event.target.closest("li[data-editing]");
    if (event.key !== "Escape" || !line || isComposing(event)) return;
    event.stopPropagation();
    this.#close(line);
  }

  /** The button goes away with its line. */
  #moveFocus(line) {
    this.#focus("[data-queue='remove']", line.nextElementSibling ?? line.previousElementSibling);
  }

  #focus(selector, line) {
    (line?.querySelector(selector) ?? document.getElementById("prompt")).focus();
  }

  #change(metadata, content = "") {
    const detail = { content, metadata };
    return this.dispatchEvent(new CustomEvent("change", { detail, cancelable: true }));
  }
}

function idOf(line) {
  return { run_id: line.dataset.runId };
}
