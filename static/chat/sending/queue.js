/**
 * The list of queued messages above the composer. Dispatches `change` (detail: the content and
 * metadata of a `queue` frame; cancelled if it cannot be sent now), and `unsaved` (detail: the
 * text) when a message leaves the queue while it is being edited. What is typed in an editor is kept
 * in the browser until it is closed.
 */

import { all, byId, closest, fieldOf, fromTemplate, setText, within } from "../page/elements.js";
import { fill, isBlank } from "../page/words.js";
import { moveBefore } from "../sessions/list.js";

export class Queue extends /** @type {Emitter<QueueEvents>} */ (EventTarget) {
  /** @type {QueueEntry[]} */
  entries = [];

  /**
   * @param {HTMLElement} element
   * @param {KeptTexts} kept
   */
  constructor(element, kept) {
    super();
    this.element = element;
    this.kept = kept;
    this.list = within(element, "ol");
    element.addEventListener("input", (event) => this.#keep(event));
    element.addEventListener("click", (event) => this.#click(event));
    element.addEventListener("submit", (event) => this.#save(event));
  }

  /**
   * Bring the list in line with `entries`; a message that is being edited stays as it is.
   * @param {QueueEntry[]} entries
   */
  show(entries) {
    if (entries === this.entries) return;
    this.entries = entries;
    const ids = new Set(entries.map((entry) => entry.run_id));
    for (const line of all(this.list, "li")) {
      if (!ids.has(line.dataset.runId ?? "")) this.#remove(line);
    }
    for (const [place, entry] of entries.entries()) this.#place(entry, place);
    this.element.hidden = !entries.length;
    within(this.element, "button[data-queue='clear']").hidden = entries.length < 2;
  }

  /** Another conversation is shown; open editors stay kept with the one before. */
  leave() {
    this.list.replaceChildren();
    this.show([]);
  }

  /** @param {Event} event */
  #keep(event) {
    const line = closest(event, "li");
    if (line) this.kept.write("queue", runOf(line), fieldOf(within(line, "form"), "content").value);
  }

  /**
   * Remove a line; text of an open editor is passed on by `unsaved`.
   * @param {HTMLElement} line
   */
  #remove(line) {
    const detail = fieldOf(within(line, "form"), "content").value;
    const isChanged = !isBlank(detail) && detail !== within(line, ".queued-text").textContent;
    const isEdited = line.hasAttribute("data-editing") && isChanged;
    line.remove();
    this.kept.write("queue", runOf(line), "");
    if (isEdited) this.dispatchEvent(new CustomEvent("unsaved", { detail }));
  }

  /**
   * @param {QueueEntry} entry
   * @param {number} place
   */
  #place(entry, place) {
    const line = this.#find(entry.run_id) ?? this.#add(entry.run_id);
    if (this.list.children[place] !== line) moveBefore(this.list, line, this.list.children[place]);
    setText(within(line, ".queued-text"), entry.content);
    within(line, "button[data-queue='edit']").hidden = entry.again;
    this.#showUp(line, place > 0);
    for (const button of all(line, "[data-label]")) {
      button.setAttribute("aria-label", fill(button.dataset.label ?? "", { text: entry.content }));
    }
  }

  /**
   * The first line has no "up" button: if that had the focus, move the focus to the button beside
   * it.
   * @param {HTMLElement} line
   * @param {boolean} isShown
   */
  #showUp(line, isShown) {
    const up = within(line, "button[data-queue='up']");
    const isLeft = !isShown && up === document.activeElement;
    up.hidden = !isShown;
    if (isLeft) this.#focus("[data-queue='edit']:not([hidden])", line);
  }

  /**
   * @param {string} run_id
   * @returns {HTMLElement | null}
   */
  #find(run_id) {
    return this.list.querySelector(`[data-run-id="${run_id}"]`);
  }

  /** @param {string} run_id */
  #add(run_id) {
    const line = fromTemplate("queued-template");
    line.dataset.runId = run_id;
    this.list.append(line);
    const text = this.kept.read("queue", run_id);
    if (text) this.#edit(line, text);
    return line;
  }

  /** @param {Event} event */
  #click(event) {
    const button = closest(event, "[data-queue]");
    if (button?.dataset.queue === "clear") this.#clear();
    const line = button?.closest("li");
    if (!line) return;
    switch (button?.dataset.queue) {
      case "up":
        return this.#change({ op: "move", ...idOf(line), position: this.#placeOf(line) - 1 });
      case "remove":
        this.#moveFocus(line);
        return this.#change({ op: "remove", ...idOf(line) });
      case "edit":
        return this.#open(line);
      case "cancel":
        return this.#close(line);
    }
  }

  #clear() {
    this.#focus("", null);
    this.#change({ op: "clear" });
  }

  /**
   * The place of a line in the queue, from 1.
   * @param {Element} line
   */
  #placeOf(line) {
    return 1 + [...this.list.children].indexOf(line);
  }

  /** @param {HTMLElement} line */
  #open(line) {
    this.#edit(line, within(line, ".queued-text").textContent).focus();
  }

  /**
   * @param {HTMLElement} line
   * @param {string} text
   */
  #edit(line, text) {
    const field = fieldOf(within(line, "form"), "content");
    field.value = text;
    line.toggleAttribute("data-editing", true);
    return field;
  }

  /** @param {HTMLElement} line */
  #close(line) {
    line.removeAttribute("data-editing");
    this.kept.write("queue", runOf(line), "");
    within(line, "button[data-queue='edit']").focus();
  }

  /** @param {Event} event */
  #save(event) {
    event.preventDefault();
    const form = /** @type {HTMLFormElement} */ (event.target);
    const line = /** @type {HTMLElement} */ (form.closest("li"));
    const content = fieldOf(form, "content").value;
    if (isBlank(content)) return;
    if (this.#change({ op: "edit", ...idOf(line) }, content)) this.#close(line);
  }

  /**
   * Escape closes the editor and leaves the message as it was.
   * @param {KeyboardEvent} event
   */
  press(event) {
    const line = closest(event, ".queue li[data-editing]");
    if (event.key !== "Escape" || !line) return false;
    this.#close(line);
    return true;
  }

  /**
   * Removing a line removes the focused button: move the focus to a neighbour.
   * @param {HTMLElement} line
   */
  #moveFocus(line) {
    this.#focus("[data-queue='remove']", line.nextElementSibling ?? line.previousElementSibling);
  }

  /**
   * @param {string} selector
   * @param {Element | null} line
   */
  #focus(selector, line) {
    (line ? within(line, selector) : byId("prompt"))?.focus();
  }

  /**
   * @param {QueueMetadata} metadata
   * @param {string} [content]
   */
  #change(metadata, content = "") {
    const detail = { content, metadata };
    return this.dispatchEvent(new CustomEvent("change", { detail, cancelable: true }));
  }
}

/** @param {HTMLElement} line */
function idOf(line) {
  return { run_id: runOf(line) };
}

/** @param {HTMLElement} line */
function runOf(line) {
  return line.dataset.runId ?? "";
}
