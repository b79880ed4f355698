/** Keeps the text being typed, per conversation, in this browser. */

const KEY = "agentsite.draft.";

export class Draft {
  #forget = () => {};
  /**
   * Drafts that could not be stored in the browser, by key; they live as long as the page.
   * @type {Map<string, string>}
   */
  #kept = new Map();

  /**
   * `getPlace()` returns the user and the session of the draft; a new conversation has an empty
   * session.
   * @param {Composer} composer
   * @param {() => { user: string, session: string }} getPlace
   */
  constructor(composer, getPlace) {
    this.composer = composer;
    this.getPlace = getPlace;
    composer.input.addEventListener("input", () => this.store());
  }

  /**
   * A visitor without an account uses the tab's storage, so nothing is left to the next visitor.
   */
  get #place() {
    const { user, session } = this.getPlace();
    /** @type {"localStorage" | "sessionStorage"} */
    const storage = user ? "localStorage" : "sessionStorage";
    return { storage, key: `${KEY}${user}.${session}` };
  }

  /** Another conversation is shown: show its draft. The one that was shown before stays stored. */
  open() {
    this.#forget = () => {};
    this.composer.replace(this.#read() ?? "");
  }

  /** Restore the draft unless something has been typed since. */
  restore() {
    const { input } = this.composer;
    const text = this.#read();
    if (!text || input.value) return;
    input.value = text;
    input.dispatchEvent(new Event("input"));
  }

  /** Store the draft under its current place, and delete it from the previous one. */
  store() {
    const place = this.#place;
    this.#forget();
    this.#forget = () => this.#write(place, "");
    this.#write(place, this.composer.draft);
  }

  /**
   * @param {{ storage: "localStorage" | "sessionStorage", key: string }} place
   * @param {string} text
   */
  #write({ storage, key }, text) {
    this.#kept.delete(key);
    try {
      if (text) window[storage].setItem(key, text);
      else window[storage].removeItem(key);
    } catch {
      // Storage is blocked or full.
      if (text) this.#kept.set(key, text);
    }
  }

  #read() {
    const { storage, key } = this.#place;
    const kept = this.#kept.get(key);
    if (kept) return kept;
    try {
      return window[storage].getItem(key);
    } catch {
      return null;
    }
  }
}
