/**
 * The messages of a session, and which of them are shown: the branch of the newest message, or of a
 * chosen one.
 *
 * Messages may arrive before their parents; they are not shown until the parent has arrived. What is
 * asked for with each token takes the same time however many messages there are.
 */

/** The statuses of a run that has not ended. */
export const ACTIVE = new Set(["queued", "running", "awaiting_input"]);

/** @param {Message | undefined} message */
export function isActive(message) {
  return ACTIVE.has(message?.run_status ?? "");
}

export class Branch {
  /** @type {Map<string, Message>} */
  #messages = new Map();
  /** @type {Map<string, Set<string>>} */
  #told = new Map();
  /** @type {Message[] | null} */
  #path = null;
  /**
   * The places of messages in the path, by id.
   * @type {Map<string, number>}
   */
  #shown = new Map();
  /** @type {Map<string, string[]> | null} */
  #places = null;
  /**
   * Messages that are known to be connected.
   * @type {Set<string>}
   */
  #connected = new Set();
  /** @type {Set<string>} */
  #active = new Set();
  /** @type {Set<string>} */
  #changed = new Set();
  /** Rises when messages are added, removed or moved. */
  structure = 0;

  /**
   * `siblings`: ids by parent, for parents with several children; `chosen`: the message whose
   * branch is shown, empty for the newest.
   * @param {Message[]} messages
   * @param {Siblings} siblings
   * @param {string} chosen
   */
  constructor(messages, siblings, chosen) {
    this.#add(messages, siblings);
    this.root = messages[0]?.message_id;
    this.chosen = chosen;
  }

  /** @param {string | null | undefined} id */
  get(id) {
    return this.#messages.get(id ?? "");
  }

  /** @param {Message} message */
  set(message) {
    const held = this.#messages.get(message.message_id);
    const { parent_message_id: parent, number } = message;
    this.#put(message);
    if (held?.parent_message_id !== parent || held?.number !== number) return this.#forget();
    const place = this.#shown.get(message.message_id);
    if (this.#path && place !== undefined) this.#path[place] = message;
  }

  /** @param {Message} message */
  #put(message) {
    const { message_id: id } = message;
    this.#messages.set(id, message);
    this.#changed.add(id);
    if (isActive(message)) this.#active.add(id);
    else this.#active.delete(id);
  }

  /**
   * Remove a withdrawn message.
   * @param {string} id
   */
  delete(id) {
    for (const ids of this.#told.values()) ids.delete(id);
    this.#messages.delete(id);
    this.#active.delete(id);
    this.#forget();
  }

  /**
   * Add messages from before the first one, oldest first.
   * @param {Message[]} messages
   * @param {Siblings} siblings
   */
  addEarlier(messages, siblings) {
    this.#add(messages, siblings);
    this.root = messages[0]?.message_id ?? this.root;
  }

  /**
   * Keep the messages that `older` shows before the first one of this branch; returns whether there
   * are any.
   * @param {Branch} older
   */
  keepEarlier(older) {
    const place = older.path.findIndex(({ message_id }) => message_id === this.root);
    if (place < 1) return false;
    for (const message of older.path.slice(0, place)) this.#put(message);
    this.#told = new Map([...older.#told, ...this.#told]);
    this.root = older.root;
    this.#forget();
    return true;
  }

  /**
   * Add messages from after the last one, oldest first; messages that are known already are newer
   * and stay.
   * @param {Message[]} messages
   * @param {Siblings} siblings
   */
  addLater(messages, siblings) {
    this.#add(
      messages.filter((message) => !this.#messages.has(message.message_id)),
      siblings,
    );
  }

  /**
   * @param {Message[]} messages
   * @param {Siblings} siblings
   */
  #add(messages, siblings) {
    for (const message of messages) this.#put(message);
    for (const [parent, ids] of Object.entries(siblings)) this.#told.set(parent, new Set(ids));
    this.#forget();
  }

  #forget() {
    this.structure += 1;
    this.#path = null;
    this.#places = null;
    this.#connected.clear();
  }

  /** Show the branch of the newest message again. */
  unchoose() {
    this.chosen = "";
    this.#forget();
  }

  /** @param {(message: Message) => boolean} matches */
  find(matches) {
    return [...this.#messages.values()].find(matches);
  }

  /** A number after all others, for a message that the server has not numbered yet. */
  get nextNumber() {
    return (
      1 + Math.max(0, ...Array.from(this.#messages.values(), (message) => message.number ?? 0))
    );
  }

  get last() {
    return this.path.at(-1);
  }

  /** The shown messages, oldest first. */
  get path() {
    if (!this.#path) {
      this.#path = this.#walk();
      this.#shown = new Map(this.#path.map(({ message_id }, place) => [message_id, place]));
    }
    return this.#path;
  }

  /** The shown replies that are worked on or wait to be, oldest first. */
  get active() {
    return this.#shownOf(this.#active);
  }

  /** The shown messages that have changed since this was called last, oldest first. */
  takeChanged() {
    const changed = this.#shownOf(this.#changed);
    this.#changed.clear();
    return changed;
  }

  /** @param {Set<string>} ids */
  #shownOf(ids) {
    const { path } = this;
    const places = [...ids].flatMap((id) => this.#shown.get(id) ?? []);
    return places.sort((one, other) => one - other).map((place) => path[place]);
  }

  /**
   * The ids of this message and of its siblings (messages with the same parent), oldest first.
   * @param {Partial<Message>} at
   * @returns {string[]}
   */
  siblingsOf({ parent_message_id: parent }) {
    this.#places ??= this.#listPlaces();
    return this.#places.get(parent ?? "") ?? [];
  }

  #listPlaces() {
    const places = new Map(Array.from(this.#told, ([parent, ids]) => [parent, [...ids]]));
    for (const { message_id: id, parent_message_id: parent } of this.#inOrder()) {
      const ids = places.get(parent ?? "") ?? [];
      places.set(parent ?? "", ids);
      if (!ids.includes(id)) ids.push(id);
    }
    return places;
  }

  #inOrder() {
    return [...this.#messages.values()].sort(
      (one, other) => (one.number ?? 0) - (other.number ?? 0),
    );
  }

  /**
   * Whether all ancestors of the message are known, up to the first message of the page.
   * @param {Message} message
   */
  isConnected(message) {
    const walked = [];
    /** @type {Message | undefined} */
    let at = message;
    while (at && !this.#connected.has(at.message_id)) {
      walked.push(at.message_id);
      if (!at.parent_message_id || at.message_id === this.root) break;
      at = this.get(at.parent_message_id);
    }
    if (at) for (const id of walked) this.#connected.add(id);
    return at !== undefined;
  }

  #walk() {
    const rows = this.#inOrder();
    const newest = new Map(rows.map((message) => [message.parent_message_id, message]));
    const start = this.get(this.chosen) ?? rows.findLast((row) => this.isConnected(row));
    const path = [];
    for (let at = start; at; at = this.get(at.parent_message_id)) path.unshift(at);
    for (let at = newest.get(start?.message_id); at; at = newest.get(at.message_id)) path.push(at);
    return path;
  }
}
