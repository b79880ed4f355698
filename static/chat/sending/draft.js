/** Keeps the text being typed, per conversation, in this browser. */

const KEY = "agentsite.draft.";

export class Draft {
  #forget = () => {};

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
    return { storage: user ? localStorage : sessionStorage, key: `${KEY}${user}.${session}` };
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
    const { draft } = this.composer;
    try {
      const { storage, key } = this.#place;
      this.#forget();
      this.#forget = () => storage.removeItem(key);
      if (draft) storage.setItem(key, draft);
      else this.#forget();
    } catch {
      // Storage is blocked or full: the text lives as long as the page.
    }
  }

  #read() {
    try {
      const { storage, key } = this.#place;
      return storage.getItem(key);
    } catch {
      return null;
    }
  }
}
