/** Search results and archived conversations, shown in place of the list. */

import { ask } from "../page/api.js";
import { all, closest, within } from "../page/elements.js";
import { count, data, words } from "../page/words.js";
import { fillLine, linkOf, moveBefore, newLine } from "./list.js";

const PAUSE_MS = 200;
/** While conversations change, results are renewed this often at most. */
const RENEW_MS = 5_000;
const { manage } = words;

export class SessionSearch {
  #asked = 0;
  /** @type {SessionRow[]} */
  #sessions = [];
  /** @type {string | null} */
  #next = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #renewal;

  /**
   * @param {{ field: HTMLInputElement, archive: HTMLElement, status: HTMLElement,
   *   found: HTMLElement, more: HTMLElement, list: SessionList }} elements
   */
  constructor({ field, archive, status, found, more, list }) {
    this.field = field;
    this.archive = archive;
    this.status = status;
    this.found = found;
    this.more = more;
    this.list = list;
    field.addEventListener("input", () => this.#wait());
    archive.addEventListener("click", () => this.#shelve());
    more.addEventListener("click", () => this.#goOn());
    this.isWhole = more.hidden;
  }

  /** The list has changed, so the results may have too: search again soon. */
  refresh() {
    if (this.isOn) this.#renewal ??= setTimeout(() => this.#renew(), RENEW_MS);
  }

  /** Lines do not move under the pointer. */
  #renew() {
    this.#renewal = undefined;
    if (this.found.matches(":hover")) this.refresh();
    else this.#ask();
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
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ask(), PAUSE_MS);
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
    return this.isOn ? this.#fetch(this.#next ?? "", this.#sessions) : this.#showOlder();
  }

  /**
   * Only the answer to the latest request is shown.
   * @param {string} query
   * @param {SessionRow[]} before
   */
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

  /** Load older sessions after the last line of the list. */
  async #showOlder() {
    const last = within(this.list.element, "li:last-child");
    this.status.textContent = "";
    try {
      const query = new URLSearchParams({ active_before: last.dataset.activeAt ?? "" });
      const { results, next } = await ask(`${data.urls.sessions}?${query}`);
      for (const { id, ...session } of results) this.list.show(id, session);
      this.isWhole = !next;
      this.more.hidden = this.isOn ? !this.#next : this.isWhole;
    } catch {
      this.status.textContent = manage.search_failed;
    }
  }

  /**
   * @param {SessionRow[]} sessions
   * @param {string | null} next
   */
  #show(sessions, next) {
    this.#sessions = sessions;
    this.#next = next;
    this.more.hidden = !next;
    const ids = new Set(sessions.map(({ id }) => id));
    for (const line of all(this.found, "li"))
      if (!ids.has(line.dataset.sessionId ?? "")) line.remove();
    for (const [place, session] of sessions.entries()) this.#place(session, place);
    this.status.textContent = this.isOn ? this.#describe(sessions.length, next) : "";
  }

  /**
   * @param {SessionRow} at
   * @param {number} place
   */
  #place({ id, archived_at, ...session }, place) {
    /** @type {HTMLElement | null} */
    const known = this.found.querySelector(`[data-session-id="${id}"]`);
    const line = known ?? newLine(id);
    fillLine(line, { ...session, archived: archived_at });
    if (this.found.children[place] !== line)
      moveBefore(this.found, line, this.found.children[place] ?? null);
    this.#mark(line);
  }

  /** Mark the session that this page shows. */
  mark() {
    for (const line of all(this.found, "li")) this.#mark(line);
  }

  /** @param {HTMLElement} line */
  #mark(line) {
    const isCurrent = line.dataset.sessionId === this.list.getCurrent();
    if (isCurrent) linkOf(line).setAttribute("aria-current", "page");
    else linkOf(line).removeAttribute("aria-current");
  }

  /**
   * @param {number} length
   * @param {string | null} next
   */
  #describe(length, next) {
    if (!length) return this.words ? manage.nothing_found : manage.nothing_archived;
    if (next) return count(manage.found_one, manage.found_more, length);
    return this.words ? count(manage.found_one, manage.found, length) : "";
  }

  /**
   * The search shortcut, and the keys in the field and between the lines.
   * @param {KeyboardEvent} event
   */
  press(event) {
    const isShortcut = event.code === "KeyK" && (event.ctrlKey || event.metaKey) && !event.shiftKey;
    if (isShortcut) return this.#open(event);
    if (event.target === this.field) return this.#pressInField(event);
    const line = closest(event, "#session-list > li, #session-found > li");
    return line !== null && event.target === linkOf(line) && this.#walk(event, line);
  }

  /** @param {KeyboardEvent} event */
  #pressInField(event) {
    const first = within(this.#shown, "a");
    if (event.key === "Escape" && this.field.value) this.#clear();
    else if (event.key === "ArrowDown" && first) first.focus();
    else if (event.key === "Enter" && this.words && first) first.click();
    else return false;
    if (event.key !== "Enter") event.preventDefault();
    return true;
  }

  #clear() {
    this.field.value = "";
    this.#ask();
  }

  get #shown() {
    return this.isOn ? this.found : this.list.element;
  }

  /**
   * Up and Down move between the lines, and from the first line back to the field.
   * @param {KeyboardEvent} event
   * @param {HTMLElement} line
   */
  #walk(event, line) {
    const lines = all(this.#shown, ":scope > [data-session-id]");
    const place = lines.indexOf(line);
    const isDown = event.key === "ArrowDown" && place + 1 < lines.length;
    if (!isDown && event.key !== "ArrowUp") return false;
    const near = lines[isDown ? place + 1 : place - 1];
    const target = near ? linkOf(near) : this.field;
    event.preventDefault();
    target.focus();
    return true;
  }

  /**
   * Ctrl+K or Cmd+K opens the search from anywhere.
   * @param {KeyboardEvent} event
   */
  #open(event) {
    event.preventDefault();
    if (!this.field.offsetParent) within(document, ".topbar [data-drawer]").click();
    this.field.focus();
    this.field.select();
    return true;
  }
}
