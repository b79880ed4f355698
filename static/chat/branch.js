/**
 * The messages of a session, and which of them are shown: those before and after the newest one.
 *
 * Messages may come before their parents; until the parent is there, they are not shown.
 */
export class Branch {
  #messages = new Map();
  #ids = null;

  constructor(messages) {
    for (const message of messages) this.#messages.set(message.message_id, message);
    this.root = messages[0]?.message_id;
  }

  get(id) {
    return this.#messages.get(id);
  }

  set(message) {
    const held = this.#messages.get(message.message_id);
    const { parent_message_id: parent, number } = message;
    if (held?.parent_message_id !== parent || held.number !== number) this.#ids = null;
    this.#messages.set(message.message_id, message);
  }

  /** A message that was taken back. */
  delete(id) {
    this.#messages.delete(id);
    this.#ids = null;
  }

  /** Messages from before the first one, oldest first. */
  addEarlier(messages) {
    for (const message of messages) this.#messages.set(message.message_id, message);
    this.root = messages[0]?.message_id ?? this.root;
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

  /** Whether the message's parents are known, up to the first one of the page. */
  isConnected(message) {
    for (let at = message; at; at = this.#messages.get(at.parent_message_id)) {
      if (!at.parent_message_id || at.message_id === this.root) return true;
    }
    return false;
  }

  #walk() {
    const connected = [...this.#messages.values()].filter((message) => this.isConnected(message));
    const newest = connected.reduce(newer, undefined);
    const path = [];
    for (let at = newest; at; at = this.#messages.get(at.parent_message_id)) path.unshift(at);
    for (let at = this.#childOf(newest); at; at = this.#childOf(at)) path.push(at);
    return path;
  }

  #childOf(parent) {
    return [...this.#messages.values()]
      .filter((message) => parent && message.parent_message_id === parent.message_id)
      .reduce(newer, undefined);
  }
}

function newer(best, message) {
  return best && best.number > message.number ? best : message;
}
