/**
 * The messages of a session, and which of them are shown: those before and after the newest one, or
 * the one that was chosen.
 *
 * Messages may come before their parents; until the parent is there, they are not shown.
 */
export class Branch {
  #messages = new Map();
  #told = new Map();
  #ids = null;
  #places = null;

  /** `siblings`: ids by parent, where there are several; `chosen`: the message to show, if any. */
  constructor(messages, siblings, chosen) {
    this.#add(messages, siblings);
    this.root = messages[0]?.message_id;
    this.chosen = chosen;
  }

  get(id) {
    return this.#messages.get(id);
  }

  set(message) {
    const held = this.#messages.get(message.message_id);
    const { parent_message_id: parent, number } = message;
    if (held?.parent_message_id !== parent || held.number !== number) this.#forget();
    this.#messages.set(message.message_id, message);
  }

  /** A message that was taken back. */
  delete(id) {
    for (const ids of this.#told.values()) ids.delete(id);
    this.#messages.delete(id);
    this.#forget();
  }

  /** Messages from before the first one, oldest first. */
  addEarlier(messages, siblings) {
    this.#add(messages, siblings);
    this.root = messages[0]?.message_id ?? this.root;
  }

  /** Messages from behind the last one, oldest first; what has come by itself is newer. */
  addLater(messages, siblings) {
    this.#add(
      messages.filter(({ message_id: id }) => !this.#messages.has(id)),
      siblings,
    );
  }

  #add(messages, siblings) {
    for (const message of messages) this.#messages.set(message.message_id, message);
    for (const [parent, ids] of Object.entries(siblings)) this.#told.set(parent, new Set(ids));
    this.#forget();
  }

  #forget() {
    this.#ids = null;
    this.#places = null;
  }

  /** Show the newest message again. */
  unchoose() {
    this.chosen = "";
    this.#ids = null;
  }

  find(matches) {
    return [...this.#messages.values()].find(matches);
  }

  /** A number behind all others, for a message that the server has not numbered yet. */
  get nextNumber() {
    return 1 + Math.max(0, ...Array.from(this.#messages.values(), (message) => message.number));
  }

  get last() {
    return this.path.at(-1);
  }

  /** From the oldest to the newest message that is shown. */
  get path() {
    this.#ids ??= this.#walk().map((message) => message.message_id);
    return this.#ids.map((id) => this.#messages.get(id));
  }

  /** The ids of all messages at the place of this one, oldest first. */
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
    return [...this.#messages.values()].sort((one, other) => one.number - other.number);
  }

  /** Whether the message's parents are known, up to the first one of the page. */
  isConnected(message) {
    for (let at = message; at; at = this.#messages.get(at.parent_message_id)) {
      if (!at.parent_message_id || at.message_id === this.root) return true;
    }
    return false;
  }

  #walk() {
    const rows = this.#inOrder();
    const newest = new Map(rows.map((message) => [message.parent_message_id, message]));
    const start = this.#messages.get(this.chosen) ?? rows.findLast((row) => this.isConnected(row));
    const path = [];
    for (let at = start; at; at = this.#messages.get(at.parent_message_id)) path.unshift(at);
    for (let at = newest.get(start?.message_id); at; at = newest.get(at.message_id)) path.push(at);
    return path;
  }
}
