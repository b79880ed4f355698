/** Conversations that a search finds, and those put away, in place of the list. */

import { ask } from "./api.js";
import { isComposing } from "./elements.js";
import { fillLine, moveBefore, newLine } from "./session_list.js";
import { count, data, words } from "./words.js";

const PAUSE_MS = 200;
const { manage } = words;

export class SessionSearch {
  #asked = 0;

  constructor({ field, archive, status, found, more, list }) {
    Object.assign(this, { field, archive, status, found, more, list });
    field.addEventListener("input", () => this.#wait());
    field.addEventListener("keydown", (event) => this.#press(event));
    found.addEventListener("keydown", (event) => this.#walk(event));
    list.element.addEventListener("keydown", (event) => this.#walk(event));
    archive.addEventListener("click", () => this.#shelve());
    more.addEventListener("click", () => this.#goOn());
    document.addEventListener("keydown", (event) => this.#find(event));
    this.isWhole = more.hidden;
  }

  /** Something changed in the list: what is found may have too. */
  refresh() {
    if (this.isOn) this.#wait();
  }

  get isOn() {
    return Boolean(this.words) || this.isArchive;
  }

  get words() {
    return this.field.value.trim();
  }

  get isArchive() {
    return this.archive.ariaPressed === "true";
  }

  #wait() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#ask(), PAUSE_MS);
  }

  #shelve() {
    this.archive.ariaPressed = String(!this.isArchive);
    this.#ask();
  }

  async #ask() {
    this.found.hidden = !this.isOn;
    this.list.element.hidden = this.isOn;
    if (!this.isOn) return this.#rest();
    const query = new URLSearchParams({ state: this.isArchive ? "archived" : "all" });
    if (this.words) query.set("search", this.words);
    await this.#fetch(`?${query}`, []);
  }

  #rest() {
    this.#show([], null);
    this.more.hidden = this.isWhole;
  }

  #goOn() {
    return this.isOn ? this.#fetch(this.next, this.sessions) : this.#showOlder();
  }

  /** Only the answer to what was asked last is shown. */
  async #fetch(query, before) {
    const asked = ++this.#asked;
    try {
      const { results, next } = await ask(data.urls.sessions + query);
      if (asked !== this.#asked || !this.isOn) return;
      this.#show([...before, ...results], next && new URL(next).search);
    } catch {
      if (asked === this.#asked) this.status.textContent = manage.search_failed;
    }
  }

  /** The list itself goes on from its last line. */
  async #showOlder() {
    const { activeAt } = this.list.element.lastElementChild.dataset;
    this.status.textContent = "";
    try {
      const query = new URLSearchParams({ active_before: activeAt });
      const { results, next } = await ask(`${data.urls.sessions}?${query}`);
      for (const { id, ...session } of results) this.list.show(id, session);
      this.isWhole = !next;
      this.more.hidden = this.isOn ? !this.next : this.isWhole;
    } catch {
      this.status.textContent = manage.search_failed;
    }
  }

  #show(sessions, next) {
    Object.assign(this, { sessions, next });
    this.more.hidden = !next;
    const ids = new Set(sessions.map(({ id }) => id));
    for (const line of [...this.found.children]) if (!ids.has(line.dataset.sessionId)) line.remove();
    sessions.forEach((session, place) => this.#place(session, place));
    this.status.textContent = this.isOn ? this.#describe(sessions.length, next) : "";
  }

  #place({ id, archived_at, ...session }, place) {
    const line = this.found.querySelector(`[data-session-id="${id}"]`) ?? newLine(id);
    fillLine(line, { ...session, archived: archived_at });
    if (this.found.children[place] !== line) moveBefore(this.found, line, this.found.children[place] ?? null);
    if (id === this.list.getCurrent()) line.firstElementChild.setAttribute("aria-current", "page");
  }

  #describe(length, next) {
    if (!length) return this.words ? manage.nothing_found : manage.nothing_archived;
    if (next) return count(manage.found_one, manage.found_more, length);
    return this.words ? count(manage.found_one, manage.found, length) : "";
  }

  #press(event) {
    const first = this.#shown.querySelector("li > a");
    if (isComposing(event)) return;
    if (event.key === "Escape" && this.field.value) {
      event.preventDefault();
      event.stopPropagation();
      this.field.value = "";
      this.#ask();
    } else if (event.key === "ArrowDown" && first) {
      event.preventDefault();
      first.focus();
    } else if (event.key === "Enter" && this.words && first) {
      first.click();
    }
  }

  get #shown() {
    return this.isOn ? this.found : this.list.element;
  }

  /** Up and down between the lines, and from the first back to the field. */
  #walk(event) {
    const line = event.target.closest("li");
    if (event.target !== line?.firstElementChild) return;
    const { nextElementSibling: below, previousElementSibling: above } = line;
    const target = {
      ArrowDown: below?.firstElementChild,
      ArrowUp: above?.firstElementChild ?? this.field,
    }[event.key];
    if (!target) return;
    event.preventDefault();
    target.focus();
  }

  /** Ctrl or Cmd and K, wherever one is. */
  #find(event) {
    if (event.code !== "KeyK" || !(event.ctrlKey || event.metaKey) || event.shiftKey) return;
    event.preventDefault();
    const drawer = this.field.closest("[popover]");
    if (getComputedStyle(drawer).display === "none") drawer.showPopover();
    this.field.focus();
    this.field.select();
  }
}
