/**
 * The messages of a session, and which of them are shown: the branch of the newest message, or of a
 * chosen one.
 *
 * Messages may arrive before their parents; they are not shown until the parent has arrived.
 */
export class Branch {
  /** @type {Map<string, Message>} */
  #messages = new Map();
  /** @type {Map<string, Set<string>>} */
  #told = new Map();
  /** @type {string[] | null} */
  #ids = null;
  /** @type {Map<string, string[]> | null} */
  #places = null;

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
    if (held?.parent_message_id !== parent || held?.number !== number) this.#forget();
    this.#messages.set(message.message_id, message);
  }

  /**
   * Remove a withdrawn message.
   * @param {string} id
   */
  delete(id) {
    for (const ids of this.#told.values()) ids.delete(id);
    this.#messages.delete(id);
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
    for (const message of messages) this.#messages.set(message.message_id, message);
    for (const [parent, ids] of Object.entries(siblings)) this.#told.set(parent, new Set(ids));
    this.#forget();
  }

  #forget() {
    this.#ids = null;
    this.#places = null;
  }

  /** Show the branch of the newest message again. */
  unchoose() {
    this.chosen = "";
    this.#ids = null;
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
    this.#ids ??= this.#walk().map((message) => message.message_id);
    return this.#ids.flatMap((id) => this.#messages.get(id) ?? []);
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
    /** @type {Message | undefined} */
    let at = message;
    while (at) {
      if (!at.parent_message_id || at.message_id === this.root) return true;
      at = this.get(at.parent_message_id);
    }
    return false;
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
