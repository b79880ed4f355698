/**
 * What was typed and is not stored by the server yet: kept in this tab over reloads, and sent
 * again under the same id until it is accepted, so that nothing is lost nor doubled.
 *
 * Entries: `{client_message_id, session_id, content, regenerate, agent, refused, isTried}`.
 */

const KEY = "agentsite.outbox.";

export class Outbox {
  #entries = [];

  /** `user` keeps what one person typed from being sent in another's name. */
  constructor(user) {
    this.user = user;
    this.#entries = this.#read();
  }

  get entries() {
    return this.#entries;
  }

  get unsent() {
    return this.#entries.filter((entry) => !entry.refused);
  }

  add(entry) {
    this.#entries.push(entry);
    this.#write();
  }

  get(id) {
    return this.#entries.find((entry) => entry.client_message_id === id);
  }

  remove(id) {
    this.#entries = this.#entries.filter((entry) => entry.client_message_id !== id);
    this.#write();
  }

  change(id, fields) {
    Object.assign(this.get(id) ?? {}, fields);
    this.#write();
  }

  /** The visitor has become `user`: what they typed goes along. */
  belongTo(user) {
    this.#store([]);
    this.user = user;
    this.#write();
  }

  /** What waited for its session to begin goes there. */
  moveTo(session_id) {
    for (const entry of this.#entries) entry.session_id ||= session_id;
    this.#write();
  }

  #read() {
    try {
      return JSON.parse(sessionStorage.getItem(KEY + this.user)) ?? [];
    } catch {
      return [];
    }
  }

  #write() {
    this.#store(this.#entries);
  }

  #store(entries) {
    try {
      if (entries.length) sessionStorage.setItem(KEY + this.user, JSON.stringify(entries));
      else sessionStorage.removeItem(KEY + this.user);
    } catch {
      // Storage is blocked or full: the entries live as long as the page.
    }
  }
}
