/** Actions on whole conversations, each of which can be undone. */

import { apiOf, ask, describeFailure } from "../page/api.js";
import { fill, words } from "../page/words.js";

const { manage } = words;

export class SessionActions {
  /** @param {Toast} toast */
  constructor(toast) {
    this.toast = toast;
  }

  /**
   * @param {string} id
   * @param {string} title
   */
  rename(id, title) {
    return this.#patch(id, { title });
  }

  /**
   * @param {ChosenSession} at
   * @param {boolean} archived
   */
  async archive({ id, title, onLeave }, archived) {
    if (!(await this.#patch(id, { archived }))) return;
    const text = fill(archived ? manage.archived : manage.unarchived, { title });
    this.#tell(text, () => this.#patch(id, { archived: !archived }), onLeave);
  }

  /**
   * @param {ChosenSession} at
   * @param {boolean} pinned
   */
  pin({ id }, pinned) {
    return this.#patch(id, { pinned });
  }

  /** @param {ChosenSession} at */
  async delete({ id, title, onLeave }) {
    if (!(await this.#ask(apiOf(id), { method: "DELETE" }))) return;
    this.#tell(fill(manage.deleted, { title }), () => this.restore(id), onLeave);
  }

  /** @param {string} id */
  restore(id) {
    return this.#ask(apiOf(id, "restore/"), { method: "POST" });
  }

  /**
   * @param {string} id
   * @param {object} body
   */
  #patch(id, body) {
    return this.#ask(apiOf(id), { method: "PATCH", body });
  }

  /**
   * Show a notice. The line that had the focus is gone, so the undo button gets it.
   * @param {string} text
   * @param {() => void} undo
   * @param {(() => void) | undefined} onLeave
   */
  #tell(text, undo, onLeave) {
    this.toast.show(text, { undo, onLeave });
    this.toast.focus();
  }

  /**
   * Send a request; returns whether it succeeded, and shows a notice if not.
   * @param {string} address
   * @param {{ method: string, body?: object }} request
   */
  async #ask(address, request) {
    try {
      await ask(address, request);
      return true;
    } catch (error) {
      this.toast.show(describeFailure(error));
      return false;
    }
  }
}
