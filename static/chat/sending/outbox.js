/**
 * Messages that the server has not acknowledged: kept in this browser, even when the tab is closed,
 * and sent again under the same id until they are accepted, so that none is lost or doubled.
 *
 * Each entry is owned by one tab, which holds a lock on it as long as it lives; then another tab
 * may claim it. Without the Web Locks API, the server recognizes doubles by their id.
 *
 * Entries: `{client_message_id, session_id, begins, content, regenerate, parent_message_id, agent,
 * refused, isTried, at}`; entries of the same conversation that does not exist yet have the same
 * `begins`.
 */

const KEY = "agentsite.outbox.";
const KEPT_MS = 30 * 24 * 3_600_000;

export class Outbox extends /** @type {Emitter<{ claim: OutboxEntry }>} */ (EventTarget) {
  /** @type {OutboxEntry[]} */
  #entries = [];
  /** @type {Map<string, (value: unknown) => void>} */
  #releases = new Map();
  /** Entries that the browser does not store. */
  #unstored = /** @type {Set<string>} */ (new Set());

  /**
   * `user`: entries are stored per user, so one person's messages are neither sent nor shown in
   * another's name.
   * @param {string} user
   */
  constructor(user) {
    super();
    this.user = user;
  }

  /** The entries that this tab owns, oldest first. */
  get entries() {
    return this.#entries;
  }

  get unsent() {
    return this.#entries.filter((entry) => !entry.refused);
  }

  /** Whether a message waits that is lost when the page is closed. */
  get isAtRisk() {
    return this.unsent.some((entry) => this.#unstored.has(entry.client_message_id));
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
   * Release the lock: whichever tab shows the entry may claim it.
   * @param {string} id
   */
  release(id) {
    this.#entries = this.#entries.filter((entry) => entry.client_message_id !== id);
    this.#releases.get(id)?.(null);
    this.#releases.delete(id);
  }

  /**
   * Claim entries that no tab owns, now or, until `signal` is aborted, as soon as they are
   * released; dispatches `claim` for each (detail: the entry).
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
   * The visitor has become `user`: store the entries under that user.
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
   * The conversation of these entries exists now: assign them to it.
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
   * Call `begin` once this tab has the lock on an entry; keep the lock if it returns true.
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
      // The request for the lock was aborted.
    }
  }

  /**
   * Returns false if the entry has been sent meanwhile.
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
    const { client_message_id: id } = entry;
    const isStored = this.#store((storage) => {
      storage.setItem(this.#key(id), JSON.stringify(entry));
      return true;
    });
    if (isStored) this.#unstored.delete(id);
    else this.#unstored.add(id);
  }

  /** All stored entries of this user; entries that are too old are deleted. */
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
   * A visitor without an account uses the tab's storage, so nothing is left to the next visitor.
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
