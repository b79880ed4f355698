/** The list of the user's sessions, newest activity first, live in every tab. */

import { fromTemplate, setText } from "./elements.js";
import { data, fill, words } from "./words.js";

const { replying, queued, awaiting } = words;
const STATES = { running: replying, queued, awaiting_input: awaiting };

export class SessionList {
  constructor(element, getCurrent) {
    this.element = element;
    this.getCurrent = getCurrent;
  }

  /** Take in a `session.*` frame. */
  apply({ session_id, metadata: { event, ...shown } }) {
    const line = this.find(session_id);
    if (event === "session.deleted" || shown.archived) line?.remove();
    else this.show(session_id, shown);
  }

  find(session_id) {
    return this.element.querySelector(`[data-session-id="${session_id}"]`);
  }

  /** Show a session by what is told of it, in its place. */
  show(session_id, shown) {
    const line = this.find(session_id) ?? newLine(session_id);
    fillLine(line, shown);
    this.#place(line);
    this.mark();
  }

  /** The ids of lines that are not among these sessions, the newest ones, all where there is no `next`. */
  missingIn(sessions, next) {
    const oldest = next ? Date.parse(sessions.at(-1).active_at) : -Infinity;
    const known = new Set(sessions.map(({ id }) => id));
    const lines = [...this.element.children].filter((line) => momentOf(line) > oldest);
    return lines.map((line) => line.dataset.sessionId).filter((id) => !known.has(id));
  }

  #place(line) {
    const moment = momentOf(line);
    const others = [...this.element.children].filter((other) => other !== line);
    const next = others.find((other) => momentOf(other) < moment) ?? null;
    moveBefore(this.element, line, next);
  }

  /** Mark the session that this page shows. */
  mark() {
    for (const line of this.element.children) {
      const isCurrent = line.dataset.sessionId === this.getCurrent();
      if (isCurrent) line.firstElementChild.setAttribute("aria-current", "page");
      else line.firstElementChild.removeAttribute("aria-current");
    }
  }
}

/** Put `line` before `next`, unless it is there; moving an element drops the focus inside it. */
export function moveBefore(list, line, next) {
  if (line.parentNode === list && line.nextElementSibling === next) return;
  // A title that is being typed would be taken as it is.
  if (line.querySelector(".rename")) return;
  const focused = line.contains(document.activeElement) ? document.activeElement : null;
  list.insertBefore(line, next);
  focused?.focus({ preventScroll: true });
}

export function newLine(session_id) {
  const line = fromTemplate("session-template");
  line.dataset.sessionId = session_id;
  line.firstElementChild.href = addressOf(session_id);
  return line;
}

/** What a line says, by what a frame or the API tells of its session. */
export function fillLine(line, { title, run_status, active_at, archived, match }) {
  const shown = title || words.untitled;
  line.dataset.activeAt = active_at;
  line.toggleAttribute("data-archived", Boolean(archived));
  setText(line.querySelector(".session-title"), shown);
  if (match !== undefined) showMatch(line, match);
  setText(line.querySelector(".session-state"), STATES[run_status] ?? (archived ? words.archived : ""));
  line.querySelector(".session-menu-button").ariaLabel = fill(words.manage.actions, { title: shown });
}

/** What a search has found in the session, and the way there. */
function showMatch(line, match) {
  const excerpt = line.querySelector(".session-excerpt");
  excerpt.hidden = !match;
  excerpt.replaceChildren(...(match?.excerpt ?? []).map(nodeOf));
  const address = addressOf(line.dataset.sessionId, match?.message_id);
  line.firstElementChild.href = match ? `${address}#m-${match.message_id}` : address;
}

function nodeOf({ text, found }) {
  if (!found) return document.createTextNode(text);
  const mark = document.createElement("mark");
  mark.textContent = text;
  return mark;
}

function momentOf(line) {
  return Date.parse(line.dataset.activeAt);
}

/** Where a session is; with `branch`, the message that it is shown around. */
export function addressOf(session_id, branch = "") {
  const address = data.urls.session.replace(/[0-9-]{36}/, session_id);
  return branch ? `${address}?branch=${branch}` : address;
}
