/** What is being typed, kept for each conversation in this browser. */

const KEY = "agentsite.draft.";

export class Draft {
  #forget = () => {};

  /**
   * `getPlace()` names whose it is and where; a new conversation has the empty name.
   * @param {Composer} composer
   * @param {() => { user: string, session: string }} getPlace
   */
  constructor(composer, getPlace) {
    this.composer = composer;
    this.getPlace = getPlace;
    composer.input.addEventListener("input", () => this.store());
  }

  /** A visitor who is nobody yet leaves nothing to the next one. */
  get #place() {
    const { user, session } = this.getPlace();
    return { storage: user ? localStorage : sessionStorage, key: `${KEY}${user}.${session}` };
  }

  /** Put it back where nothing has been typed since. */
  restore() {
    const { input } = this.composer;
    const text = this.#read();
    if (!text || input.value) return;
    input.value = text;
    input.dispatchEvent(new Event("input"));
  }

  /** Keep it in its place, and no longer where the conversation had no name yet. */
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
