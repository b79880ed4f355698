/**
 * Keeps texts that are typed but not sent in this browser: neither a reload nor a closed tab loses
 * them.
 *
 * Each tab keeps its own. What another tab keeps under the same name is shown where a tab has
 * nothing itself, as after it was closed; a visitor without an account leaves nothing to the next.
 */

/** Where the next page in this tab finds whose texts it takes over. */
const HEIR = "agentsite.heir";

export class KeptTexts {
  /**
   * What this tab has put into the storage of all tabs, or found there, by key.
   * @type {Map<string, string>}
   */
  #shared = new Map();
  /**
   * Texts that no storage takes; they live as long as the page.
   * @type {Map<string, string>}
   */
  #unstored = new Map();

  /** @param {() => string} getUser */
  constructor(getUser) {
    this.getUser = getUser;
    addEventListener("storage", ({ key, oldValue, newValue }) => {
      // Another tab has sent or deleted the text that this one keeps as well.
      if (key && newValue === null) drop("sessionStorage", key, oldValue);
    });
  }

  /**
   * @param {Kind} kind
   * @param {string} id
   */
  #key(kind, id) {
    return `agentsite.${kind}.${this.getUser()}.${id}`;
  }

  /**
   * The text of that kind and id; empty if there is none.
   * @param {Kind} kind
   * @param {string} id
   */
  read(kind, id) {
    const key = this.#key(kind, id);
    const own = this.#unstored.get(key) ?? get("sessionStorage", key);
    const shared = this.getUser() ? get("localStorage", key) : null;
    if (shared && (!own || own === shared)) this.#shared.set(key, shared);
    return own ?? shared ?? "";
  }

  /**
   * Keep a text, or nothing any more if it is empty.
   * @param {Kind} kind
   * @param {string} id
   * @param {string} text
   */
  write(kind, id, text) {
    this.#write(this.#key(kind, id), text);
  }

  /**
   * @param {string} key
   * @param {string} text
   */
  #write(key, text) {
    this.#unstored.delete(key);
    if (!text) return this.#delete(key);
    if (!set("sessionStorage", key, text)) this.#unstored.set(key, text);
    if (this.getUser() && set("localStorage", key, text)) this.#shared.set(key, text);
  }

  /** @param {string} key */
  #delete(key) {
    drop("sessionStorage", key);
    drop("localStorage", key, this.#shared.get(key) ?? "");
    this.#shared.delete(key);
  }

  /**
   * The ids of all texts of a kind.
   * @param {Kind} kind
   */
  idsOf(kind) {
    const start = this.#key(kind, "");
    const keys = [...keysOf("sessionStorage"), ...(this.getUser() ? keysOf("localStorage") : [])];
    const ids = keys.filter((key) => key.startsWith(start)).map((key) => key.slice(start.length));
    return [...new Set(ids)];
  }
}

/**
 * The visitor or guest leaves this page to sign in or up: what they have typed goes along.
 * @param {string} user
 */
export function bequeath(user) {
  set("sessionStorage", HEIR, JSON.stringify(user));
}

/**
 * Take over what the visitor or guest of this tab had typed before they became `user`, but not what
 * they had sent: that would be said in another name. It is for a guest to take over, whom it has
 * made: the page may have been loaded again before it knew. Call it before anything is read.
 * @param {string} user
 * @param {boolean} isGuest
 */
export function inherit(user, isGuest) {
  const heir = JSON.parse(get("sessionStorage", HEIR) ?? (isGuest ? '""' : "null"));
  if (heir === null || !user) return;
  drop("sessionStorage", HEIR);
  if (heir === user) return;
  const kinds = isGuest ? "" : "(?!outbox)";
  const old = new RegExp(`^(agentsite\\.${kinds}\\w+\\.)${heir}(?=\\.)`);
  for (const area of AREAS) {
    for (const key of keysOf(area).filter((one) => old.test(one))) {
      const text = get(area, key);
      if (text && set("localStorage", key.replace(old, `$1${user}`), text)) drop(area, key);
    }
  }
}

/** @type {Area[]} */
const AREAS = ["sessionStorage", "localStorage"];

// Storage may be blocked or full.

/** @typedef {"sessionStorage" | "localStorage"} Area */

/**
 * @param {Area} area
 * @param {string} key
 */
function get(area, key) {
  try {
    return window[area].getItem(key);
  } catch {
    return null;
  }
}

/**
 * Returns false if the text could not be stored; an older one stays.
 * @param {Area} area
 * @param {string} key
 * @param {string} text
 */
function set(area, key, text) {
  try {
    window[area].setItem(key, text);
    return true;
  } catch {
    return false;
  }
}

/**
 * Delete what is stored under a key, or only if it is `text`.
 * @param {Area} area
 * @param {string} key
 * @param {string | null} [text]
 */
function drop(area, key, text) {
  try {
    const isSame = text === undefined || window[area].getItem(key) === text;
    if (isSame) window[area].removeItem(key);
  } catch {
    // Nothing is stored.
  }
}

/** @param {Area} area */
function keysOf(area) {
  try {
    return Object.keys(window[area]);
  } catch {
    return [];
  }
}
