/**
 * The messages that wait for their turn, above the composer; says `change` (detail: the content
 * and metadata of a `queue` frame).
 */

import { fromTemplate, setText } from "./elements.js";
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
    if (this.list.children[place] !== line) this.list.insertBefore(line, this.list.children[place]);
    setText(line.querySelector(".queued-text"), entry.content);
    line.querySelector("[data-queue='edit']").hidden = entry.again;
    line.querySelector("[data-queue='up']").hidden = place === 0;
    for (const button of line.querySelectorAll("[data-queue]")) {
      button.setAttribute("aria-label", fill(button.dataset.label, { text: entry.content }));
    }
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
    if (!content.trim()) return;
    this.#close(line);
    this.#change({ op: "edit", ...idOf(line) }, content);
  }

  #escape(event) {
    const line = event.target.closest("li[data-editing]");
    if (event.key !== "Escape" || !line) return;
    event.stopPropagation();
    this.#close(line);
  }

  /** The button goes away with its line. */
  #moveFocus(line) {
    const next = line.nextElementSibling ?? line.previousElementSibling;
    const target = next?.querySelector("[data-queue='remove']");
    (target ?? document.getElementById("prompt")).focus();
  }

  #change(metadata, content = "") {
    this.dispatchEvent(new CustomEvent("change", { detail: { content, metadata } }));
  }
}

function idOf(line) {
  return { run_id: line.dataset.runId };
}
