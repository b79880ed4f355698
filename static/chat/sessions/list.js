/** The list of the user's sessions, newest activity first, live in every tab. */

import { all, byId, fromTemplate, setText, within } from "../page/elements.js";
import { describeGroup, describeSession } from "../page/labels.js";
import { data, fill, words } from "../page/words.js";
import { Unread } from "./unread.js";

/** Lines do not move until the pointer has rested on them for so long. */
const STILL_MS = 1_500;

export class SessionList {
  /**
   * Lines that are to move once the pointer rests or has left.
   * @type {Set<HTMLElement>}
   */
  #moving = new Set();
  #timer = 0;
  #isGrouping = false;

  /**
   * @param {HTMLElement} element
   * @param {() => string} getCurrent
   */
  constructor(element, getCurrent) {
    this.element = element;
    this.getCurrent = getCurrent;
    const onChange = () => this.mark();
    this.unread = new Unread({ user: data.user, getCurrent, onChange });
    element.addEventListener("pointermove", () => this.#hold(), { passive: true });
    element.addEventListener("pointerleave", () => this.#release());
    this.mark();
  }

  #hold() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#release(), STILL_MS);
  }

  /** Let lines move, and move those that have waited. */
  #release() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    for (const line of this.#moving) this.#place(line);
    this.#moving.clear();
  }

  /**
   * Apply a `session.*` frame.
   * @param {string} session_id
   * @param {SessionEvent} at
   */
  apply(session_id, { event, ...shown }) {
    if (event === "session.deleted" || shown.archived) this.#remove(session_id);
    else this.show(session_id, shown);
  }

  /** @param {string} session_id */
  #remove(session_id) {
    const line = this.find(session_id);
    if (!line) return;
    this.#moving.delete(line);
    const leave = line.contains(document.activeElement) ? leaver(line) : undefined;
    line.remove();
    leave?.();
    this.#group();
  }

  /**
   * @param {string} session_id
   * @returns {HTMLElement | null}
   */
  find(session_id) {
    const moving = [...this.#moving].find((line) => line.dataset.sessionId === session_id);
    return moving ?? this.element.querySelector(`[data-session-id="${session_id}"]`);
  }

  /**
   * Show a session at its place in the list; while the pointer moves there, it gets there later.
   * @param {string} session_id
   * @param {SessionInfo} shown
   */
  show(session_id, shown) {
    const line = this.find(session_id) ?? newLine(session_id);
    fillLine(line, shown);
    this.#mark(line);
    if (this.#timer) this.#moving.add(line);
    else this.#place(line);
  }

  /**
   * The ids of lines that are not among these newest sessions; older lines count only if there is
   * no `next`.
   * @param {SessionRow[]} sessions
   * @param {string | null} next
   */
  missingIn(sessions, next) {
    const last = sessions.at(-1);
    const oldest = next && last ? Date.parse(last.active_at) : -Infinity;
    const known = new Set(sessions.map(({ id }) => id));
    const lines = this.#lines.filter((line) => momentOf(line) > oldest);
    return lines.map((line) => line.dataset.sessionId ?? "").filter((id) => !known.has(id));
  }

  /** @param {HTMLElement} line */
  #place(line) {
    const lines = this.#lines;
    const next = lines.find((other) => other !== line && precedes(line, other)) ?? null;
    const isThere = line.parentNode === this.element;
    if (!isThere || (lines[lines.indexOf(line) + 1] ?? null) !== next) {
      moveBefore(this.element, line, next);
    }
    this.#group();
  }

  /** Put a heading before the first line of each group, once for all lines that change now. */
  #group() {
    if (this.#isGrouping) return;
    this.#isGrouping = true;
    queueMicrotask(() => this.#head());
  }

  #head() {
    this.#isGrouping = false;
    const now = new Date();
    const headings = all(this.element, ":scope > .session-group");
    let last = "";
    for (const line of this.#lines) {
      const isPinned = line.hasAttribute("data-pinned");
      const label = describeGroup(new Date(momentOf(line)), now, isPinned);
      if (label !== last) headLine(line, label, headings);
      last = label;
    }
    for (const heading of headings) heading.remove();
  }

  get #lines() {
    return all(this.element, ":scope > [data-session-id]");
  }

  /** Mark the session that this page shows, and those that are unread. */
  mark() {
    for (const line of this.#lines) this.#mark(line);
    this.#group();
  }

  /** @param {HTMLElement} line */
  #mark(line) {
    const { sessionId = "" } = line.dataset;
    const isBusy = line.hasAttribute("data-busy");
    const isUnread = this.unread.note(sessionId, isBusy);
    line.toggleAttribute("data-unread", isUnread);
    if (!isBusy) setText(within(line, ".session-state"), isUnread ? words.unread : "");
    if (sessionId === this.getCurrent()) linkOf(line).setAttribute("aria-current", "page");
    else linkOf(line).removeAttribute("aria-current");
  }
}

/**
 * Put a heading before `line`: one of `headings`, which it is taken from, or a new one.
 * @param {HTMLElement} line
 * @param {string} label
 * @param {HTMLElement[]} headings
 */
function headLine(line, label, headings) {
  const place = headings.findIndex(({ textContent }) => textContent === label);
  const [heading = fromTemplate("group-template")] = place < 0 ? [] : headings.splice(place, 1);
  setText(within(heading, "h2"), label);
  if (line.previousElementSibling !== heading) line.before(heading);
}

/**
 * Whether a line comes before another one.
 * @param {HTMLElement} line
 * @param {HTMLElement} other
 */
function precedes(line, other) {
  const isPinned = line.hasAttribute("data-pinned");
  if (isPinned !== other.hasAttribute("data-pinned")) return isPinned;
  return momentOf(line) > momentOf(other);
}

/**
 * Put `line` before `next`, unless it is there already; moving an element would drop the focus
 * inside it, so that is restored.
 * @param {Element} list
 * @param {HTMLElement} line
 * @param {Element | null} next
 */
export function moveBefore(list, line, next) {
  if (line.parentNode === list && line.nextElementSibling === next) return;
  // Moving a line would submit a title that is being typed.
  if (line.querySelector(".rename")) return;
  const { activeElement } = document;
  const focused =
    activeElement instanceof HTMLElement && line.contains(activeElement) ? activeElement : null;
  list.insertBefore(line, next);
  focused?.focus({ preventScroll: true });
}

/** @param {string} session_id */
export function newLine(session_id) {
  const line = fromTemplate("session-template");
  line.dataset.sessionId = session_id;
  linkOf(line).href = addressOf(session_id);
  return line;
}

/**
 * Fill in a line from the fields of a frame or of the API.
 * @param {HTMLElement} line
 * @param {SessionInfo} session
 */
export function fillLine(line, session) {
  const { title, active_at, archived, pinned, match } = session;
  const shown = title || words.untitled;
  line.dataset.activeAt = active_at;
  line.toggleAttribute("data-archived", Boolean(archived));
  line.toggleAttribute("data-pinned", Boolean(pinned));
  line.toggleAttribute("data-busy", Boolean(session.run_status));
  setText(within(line, ".session-title"), shown);
  if (match !== undefined) showMatch(line, match);
  setText(within(line, ".session-state"), describeSession(session));
  within(line, ".session-menu-button").ariaLabel = fill(words.manage.actions, { title: shown });
}

/**
 * Show the excerpt that a search has found, and link to its message.
 * @param {HTMLElement} line
 * @param {SearchMatch | null} match
 */
function showMatch(line, match) {
  const excerpt = within(line, ".session-excerpt");
  excerpt.hidden = !match;
  excerpt.replaceChildren(...(match?.excerpt ?? []).map(nodeOf));
  const address = addressOf(line.dataset.sessionId ?? "", match?.message_id);
  linkOf(line).href = match ? `${address}#m-${match.message_id}` : address;
}

/** @param {SearchMatch["excerpt"][number]} at */
function nodeOf({ text, found }) {
  if (!found) return document.createTextNode(text);
  const mark = document.createElement("mark");
  mark.textContent = text;
  return mark;
}

/** @param {HTMLElement} line */
function momentOf(line) {
  return Date.parse(line.dataset.activeAt ?? "");
}

/**
 * The address of a session; with `branch`, on the branch of that message.
 * @param {string} session_id
 * @param {string} [branch]
 */
export function addressOf(session_id, branch = "") {
  const address = data.urls.session.replace(/[0-9-]{36}/, session_id);
  return branch ? `${address}?branch=${branch}` : address;
}

/**
 * Returns a function that focuses the line or, once it is gone, the line next to it.
 * @param {HTMLElement} line
 */
export function leaver(line) {
  const { parentNode: list } = line;
  const lines = list ? all(list, ":scope > [data-session-id]") : [];
  const place = lines.indexOf(line);
  const [previous, next] = [lines[place - 1], lines[place + 1]];
  return () => {
    const neighbour = [line, next, previous].find((near) => near?.parentNode === list);
    (neighbour ? linkOf(neighbour) : byId("new-chat")).focus();
  };
}

/**
 * The link of a line.
 * @param {Element} line
 */
export function linkOf(line) {
  return /** @type {HTMLAnchorElement} */ (line.firstElementChild);
}
