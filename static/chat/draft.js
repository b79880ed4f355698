/** What is being typed, kept for each conversation in this browser. */

const KEY = "agentsite.draft.";

export class Draft {
  /** `getPlace()` names whose it is and where; a new conversation has the empty name. */
  constructor(input, getPlace) {
    Object.assign(this, { input, getPlace });
    input.addEventListener("input", () => this.store());
  }

  get #key() {
    const { user, session } = this.getPlace();
    return `${KEY}${user}.${session}`;
  }

  /** A visitor who is nobody yet leaves nothing to the next one. */
  get #storage() {
    return this.getPlace().user ? localStorage : sessionStorage;
  }

  /** Put it back where nothing has been typed since. */
  restore() {
    const text = this.#read();
    if (!text || this.input.value) return;
    this.input.value = text;
    this.input.dispatchEvent(new Event("input"));
  }

  store() {
    try {
      if (this.input.value) this.#storage.setItem(this.#key, this.input.value);
      else this.#storage.removeItem(this.#key);
    } catch {
      // Storage is blocked or full: the text lives as long as the page.
    }
  }

  #read() {
    try {
      return this.#storage.getItem(this.#key);
    } catch {
      return null;
    }
  }
}
