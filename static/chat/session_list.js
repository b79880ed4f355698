/** The list of the user's sessions, newest activity first, live in every tab. */

import { fromTemplate, setText } from "./elements.js";
import { data, words } from "./words.js";

const { replying, queued, awaiting } = words;
const STATES = { running: replying, queued, awaiting_input: awaiting };

export class SessionList {
  constructor(element, getCurrent) {
    this.element = element;
    this.getCurrent = getCurrent;
  }

  /** Take in a `session.*` frame. */
  apply({ session_id, metadata: { event, title, run_status, archived } }) {
    const line = this.element.querySelector(`[data-session-id="${session_id}"]`);
    if (event === "session.deleted" || archived) {
      line?.remove();
      return;
    }
    const shown = line ?? this.#add(session_id);
    setText(shown.querySelector(".session-title"), title || words.untitled);
    setText(shown.querySelector(".session-state"), STATES[run_status] ?? "");
    if (event !== "session.updated") this.#raise(shown);
    this.mark();
  }

  #add(session_id) {
    const line = fromTemplate("session-template");
    line.dataset.sessionId = session_id;
    line.firstElementChild.href = addressOf(session_id);
    this.element.prepend(line);
    return line;
  }

  /** Moving an element drops the focus inside it. */
  #raise(line) {
    if (line === this.element.firstElementChild) return;
    const focused = line.contains(document.activeElement) ? document.activeElement : null;
    this.element.prepend(line);
    focused?.focus({ preventScroll: true });
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

export function addressOf(session_id) {
  return data.urls.session.replace(/[0-9-]{36}/, session_id);
}
