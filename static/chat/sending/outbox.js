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

export class Outbox extends /** @type {Emitter<{ claim: OutboxEntry }>} */ (EventTarget) {
  /** @type {OutboxEntry[]} */
  #entries = [];
  /** @type {Map<string, (value: unknown) => void>} */
  #releases = new Map();

  /**
   * `user` keeps what one person typed from being sent in another's name, and from their sight.
   * @param {string} user
   */
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

  /** @param {string} id */
  get(id) {
    return this.#entries.find((entry) => entry.client_message_id === id);
  }

  /** @param {OutboxEntry} entry */
  add(entry) {
    entry.at = Date.now();
    this.#entries.push(entry);
    this.#write(entry);
    this.#hold(entry.client_message_id, () => true);
  }

  /**
   * @param {string} id
   * @param {Partial<OutboxEntry>} fields
   */
  change(id, fields) {
    const entry = this.get(id);
    if (entry) this.#write(Object.assign(entry, fields));
    return entry;
  }

  /** @param {string} id */
  remove(id) {
    this.#store((storage) => storage.removeItem(this.#key(id)));
    this.release(id);
  }

  /**
   * Leave it to whichever tab will show it.
   * @param {string} id
   */
  release(id) {
    this.#entries = this.#entries.filter((entry) => entry.client_message_id !== id);
    this.#releases.get(id)?.(null);
    this.#releases.delete(id);
  }

  /**
   * Care for those that nobody does, now or, until `signal` is aborted, as soon as that is so;
   * says `claim` for each (detail: the entry).
   * @param {(entry: OutboxEntry) => boolean} isWanted
   * @param {AbortSignal} [signal]
   */
  claim(isWanted, signal) {
    for (const entry of this.#list()) {
      const { client_message_id: id } = entry;
      if (!this.get(id) && isWanted(entry)) this.#hold(id, () => this.#take(id), signal);
    }
  }

  /**
   * The visitor has become `user`: what they typed goes along.
   * @param {string} user
   */
  belongTo(user) {
    for (const { client_message_id: id } of this.#entries) {
      this.#store((storage) => storage.removeItem(this.#key(id)));
    }
    this.user = user;
    for (const entry of this.#entries) this.#write(entry);
  }

  /**
   * What waited for its conversation to begin goes there.
   * @param {string} session_id
   * @param {string} begins
   */
  moveTo(session_id, begins) {
    for (const entry of this.#entries) {
      if (entry.session_id || entry.begins !== begins) continue;
      this.#write(Object.assign(entry, { session_id }));
    }
  }

  /**
   * Have `begin` called when the lock on an entry is ours; keep it if that returns true.
   * @param {string} id
   * @param {() => boolean} begin
   * @param {AbortSignal} [signal]
   */
  async #hold(id, begin, signal) {
    if (!navigator.locks) return begin();
    const keep = () => begin() && new Promise((resolve) => this.#releases.set(id, resolve));
    try {
      await navigator.locks.request(KEY + id, { signal }, keep);
    } catch {
      // It is claimed no longer.
    }
  }

  /**
   * False where it has been sent meanwhile.
   * @param {string} id
   */
  #take(id) {
    const entry = this.#list().find((stored) => stored.client_message_id === id);
    if (!entry || this.get(id)) return false;
    this.#entries.push(entry);
    this.#entries.sort(byAge);
    this.dispatchEvent(new CustomEvent("claim", { detail: entry }));
    return true;
  }

  /** @param {string} id */
  #key(id) {
    return `${KEY}${this.user}.${id}`;
  }

  /** @param {OutboxEntry} entry */
  #write(entry) {
    this.#store((storage) =>
      storage.setItem(this.#key(entry.client_message_id), JSON.stringify(entry)),
    );
  }

  /** All that is kept of this user's; what is too old is not sent any more. */
  #list() {
    return (
      this.#store((storage) => {
        const keys = Object.keys(storage).filter((key) => key.startsWith(this.#key("")));
        /** @type {OutboxEntry[]} */
        const entries = keys.map((key) => JSON.parse(storage.getItem(key) ?? ""));
        for (const entry of entries.filter(isOld))
          storage.removeItem(this.#key(entry.client_message_id));
        return entries.filter((entry) => !isOld(entry)).sort(byAge);
      }) ?? []
    );
  }

  /**
   * A visitor who is nobody yet leaves nothing to the next one.
   * @template T
   * @param {(storage: Storage) => T} work
   */
  #store(work) {
    try {
      return work(this.user ? localStorage : sessionStorage);
    } catch {
      // Storage is blocked or full: the entries live as long as the page.
    }
  }
}

/** @param {OutboxEntry} entry */
function isOld({ at = 0 }) {
  return Date.now() - at > KEPT_MS;
}

/**
 * @param {OutboxEntry} one
 * @param {OutboxEntry} other
 */
function byAge({ at: one = 0 }, { at: other = 0 }) {
  return one - other;
}
