/**
 * What was typed and is not stored by the server yet: kept in this browser, also when its tab is
 * closed, and sent again under the same id until it is accepted, so that nothing is lost nor
 * doubled.
 *
 * Each entry is cared for by one tab, which holds a lock on it for as long as it lives; then
 * another one may claim it. Where there are no locks, the server tells doubles by their id.
 *
 * Entries: `{client_message_id, session_id, begins, content, regenerate, parent_message_id, agent,
 * refused, isTried, at}`; those of one conversation that is still to begin have the same `begins`.
 */

const KEY = "agentsite.outbox.";
const KEPT_MS = 30 * 24 * 3_600_000;

export class Outbox extends EventTarget {
  #entries = [];
  #releases = new Map();

  /** `user` keeps what one person typed from being sent in another's name, and from their sight. */
  constructor(user) {
    super();
    this.user = user;
  }

  /** Those that this tab cares for, oldest first. */
  get entries() {
    return this.#entries;
  }

  get unsent() {
    return this.#entries.filter((entry) => !entry.refused);
  }

  get(id) {
    return this.#entries.find((entry) => entry.client_message_id === id);
  }

  add(entry) {
    entry.at = Date.now();
    this.#entries.push(entry);
    this.#write(entry);
    this.#hold(entry.client_message_id, () => true);
  }

  change(id, fields) {
    const entry = this.get(id);
    if (entry) this.#write(Object.assign(entry, fields));
  }

  remove(id) {
    this.#store((storage) => storage.removeItem(this.#key(id)));
    this.release(id);
  }

  /** Leave it to whichever tab will show it. */
  release(id) {
    this.#entries = this.#entries.filter((entry) => entry.client_message_id !== id);
    this.#releases.get(id)?.();
    this.#releases.delete(id);
  }

  /**
   * Care for those that nobody does, now or, until `signal` is aborted, as soon as that is so;
   * says `claim` for each (detail: the entry).
   */
  claim(isWanted, signal) {
    for (const entry of this.#list()) {
      const { client_message_id: id } = entry;
      if (!this.get(id) && isWanted(entry)) this.#hold(id, () => this.#take(id), signal);
    }
  }

  /** The visitor has become `user`: what they typed goes along. */
  belongTo(user) {
    for (const { client_message_id: id } of this.#entries) {
      this.#store((storage) => storage.removeItem(this.#key(id)));
    }
    this.user = user;
    this.#entries.forEach((entry) => this.#write(entry));
  }

  /** What waited for its conversation to begin goes there. */
  moveTo(session_id, begins) {
    for (const entry of this.#entries) {
      if (entry.session_id || entry.begins !== begins) continue;
      this.#write(Object.assign(entry, { session_id }));
    }
  }

  /** Have `begin` called when the lock on an entry is ours; keep it if that returns true. */
  async #hold(id, begin, signal) {
    if (!navigator.locks) return begin();
    const keep = () => begin() && new Promise((resolve) => this.#releases.set(id, resolve));
    try {
      await navigator.locks.request(KEY + id, { signal }, keep);
    } catch {
      // It is claimed no longer.
    }
  }

  /** False where it has been sent meanwhile. */
  #take(id) {
    const entry = this.#list().find((stored) => stored.client_message_id === id);
    if (!entry || this.get(id)) return false;
    this.#entries.push(entry);
    this.#entries.sort((one, other) => one.at - other.at);
    this.dispatchEvent(new CustomEvent("claim", { detail: entry }));
    return true;
  }

  #key(id) {
    return `${KEY}${this.user}.${id}`;
  }

  #write(entry) {
    this.#store((storage) => storage.setItem(this.#key(entry.client_message_id), JSON.stringify(entry)));
  }

  /** All that is kept of this user's; what is too old is not sent any more. */
  #list() {
    return this.#store((storage) => {
      const keys = Object.keys(storage).filter((key) => key.startsWith(this.#key("")));
      const entries = keys.map((key) => JSON.parse(storage.getItem(key)));
      const isOld = ({ at }) => Date.now() - at > KEPT_MS;
      for (const entry of entries.filter(isOld)) storage.removeItem(this.#key(entry.client_message_id));
      return entries.filter((entry) => !isOld(entry)).sort((one, other) => one.at - other.at);
    }) ?? [];
  }

  /** A visitor who is nobody yet leaves nothing to the next one. */
  #store(work) {
    try {
      return work(this.user ? localStorage : sessionStorage);
    } catch {
      // Storage is blocked or full: the entries live as long as the page.
    }
  }
}
