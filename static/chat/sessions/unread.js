/**
 * Which conversations have a reply that has ended since they were last looked at in this browser.
 *
 * A session is "busy" from the moment that one of its replies is seen in progress; once that has
 * ended it is "unread", until a visible page shows it.
 */

const KEY = "agentsite.unread.";
const KEPT = 200;

export class Unread {
  #marks = /** @type {Record<string, "busy" | "unread">} */ ({});

  /**
   * `onChange` is called when another tab has changed the marks, or this one has become visible.
   * @param {{ user: string, getCurrent: () => string, onChange: () => void }} page
   */
  constructor({ user, getCurrent, onChange }) {
    this.key = KEY + user;
    this.getCurrent = getCurrent;
    this.#marks = this.#read();
    addEventListener("storage", ({ key }) => {
      if (key !== this.key) return;
      this.#marks = this.#read();
      onChange();
    });
    document.addEventListener("visibilitychange", onChange);
  }

  /**
   * Note whether a reply of a session is in progress; returns whether the session is unread.
   * @param {string} session_id
   * @param {boolean} isBusy
   */
  note(session_id, isBusy) {
    const isSeen = session_id === this.getCurrent() && document.visibilityState === "visible";
    const known = this.#marks[session_id];
    const mark = isBusy ? "busy" : isSeen || !known ? undefined : "unread";
    if (mark !== known) this.#mark(session_id, mark);
    return mark === "unread";
  }

  /**
   * @param {string} session_id
   * @param {"busy" | "unread"} [mark]
   */
  #mark(session_id, mark) {
    const { [session_id]: _, ...others } = this.#read();
    const marks = Object.entries(mark ? { ...others, [session_id]: mark } : others);
    this.#marks = Object.fromEntries(marks.slice(-KEPT));
    try {
      localStorage.setItem(this.key, JSON.stringify(this.#marks));
    } catch {
      // Storage is blocked or full: the marks live as long as the page.
    }
  }

  #read() {
    try {
      return JSON.parse(localStorage.getItem(this.key) ?? "{}");
    } catch {
      return this.#marks;
    }
  }
}
