/** Keeps what is being typed in the composer, per conversation: a new message, and an edit. */

import { joinTexts } from "../page/words.js";

export class Draft {
  /**
   * The id under which the text in the box is kept; undefined while nothing of it is.
   * @type {string | undefined}
   */
  #id;

  /**
   * `getSession()` returns the session of the draft, empty for a new conversation; `reopen` shows
   * an edit again.
   * @param {{ composer: Composer, kept: KeptTexts, getSession: () => string,
   *   reopen: (edit: Revision) => void }} page
   */
  constructor({ composer, kept, getSession, reopen }) {
    this.composer = composer;
    this.kept = kept;
    this.getSession = getSession;
    this.reopen = reopen;
    composer.input.addEventListener("input", () => this.store());
  }

  /**
   * Another conversation is shown: show its draft. What was typed behind `before`, the text at the
   * time when it was asked for, goes along; the rest stays with the conversation before.
   * @param {string} before
   */
  open(before) {
    const { edited, input } = this.composer;
    const isAdded = !edited && input.value !== before && input.value.startsWith(before);
    if (isAdded && this.#id !== undefined) this.kept.write("draft", this.#id, before);
    this.#id = undefined;
    const added = isAdded ? input.value.slice(before.length) : "";
    const edit = this.#readEdit();
    this.composer.replace(joinTexts(this.#read(), added));
    if (edit) this.reopen(edit);
  }

  /** Show what was typed before the page was loaded; what has been typed since stays before it. */
  restore() {
    const { input } = this.composer;
    const text = this.#read();
    const edit = this.#readEdit();
    if (text && !input.value) {
      input.value = text;
      input.dispatchEvent(new Event("input"));
    }
    if (edit) this.reopen(edit);
  }

  /** Store what is typed under its current place, and delete it from the previous one. */
  store() {
    const id = this.getSession();
    const before = this.#id;
    this.#id = id;
    this.#write(id, this.composer.draft, this.composer.revision);
    if (before !== undefined && before !== id) this.#write(before, "", null);
  }

  /**
   * @param {string} id
   * @param {string} text
   * @param {Revision | null} edit
   */
  #write(id, text, edit) {
    this.kept.write("draft", id, text);
    this.kept.write("edit", id, edit ? JSON.stringify(edit) : "");
  }

  #read() {
    return this.kept.read("draft", this.getSession());
  }

  /** @returns {Revision | null} */
  #readEdit() {
    return JSON.parse(this.kept.read("edit", this.getSession()) || "null");
  }
}
