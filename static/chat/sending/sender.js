/** Sends messages through the outbox, again on each connection, until they are accepted. */

import { becomeGuest } from "../page/api.js";
import { data, fill, words } from "../page/words.js";

const KB = 1_024;

export class Sender {
  #sent = new Set();
  /** Messages that the server has no room for yet. */
  #postponed = new Set();
  /** @type {string | undefined} */
  #begins;
  /** @type {Promise<string> | null} */
  #becoming = null;
  /** @type {AbortController | undefined} */
  #claiming;
  #opening = new AbortController();

  /**
   * `draw` shows changes; `follow` scrolls to the end.
   * @param {{ connection: Connection, outbox: Outbox, composer: Composer, picker: AgentPicker,
   *   conversation: Conversation, draw: () => void, follow: () => void }} page
   */
  constructor({ connection, outbox, composer, picker, conversation, draw, follow }) {
    this.connection = connection;
    this.outbox = outbox;
    this.composer = composer;
    this.picker = picker;
    this.conversation = conversation;
    this.draw = draw;
    this.follow = follow;
    outbox.addEventListener("claim", ({ detail }) => this.#adopt(detail));
    this.open();
  }

  /** Another conversation is shown: claim its messages that no tab owns. */
  open() {
    const { sessionId } = this.conversation;
    this.#begins = undefined;
    this.#opening.abort();
    this.#opening = new AbortController();
    this.outbox.claim((entry) => entry.session_id === sessionId, this.#opening.signal);
  }

  /**
   * Send a message; `options` as in `Chat.submit`. While messages before it load, `loading` is the
   * promise of whether that works. Returns false, after a hint, if it is too large.
   * @param {string} content
   * @param {SendOptions} options
   * @param {Promise<boolean>} [loading]
   */
  submit(content, options, loading) {
    const entry = this.#entryOf(content, options, !loading);
    const isFitting = this.fits(frameOf(entry));
    if (isFitting) this.#submit(entry, loading);
    return isFitting;
  }

  /**
   * @param {OutboxEntry} entry
   * @param {Promise<boolean> | undefined} loading
   */
  async #submit(entry, loading) {
    // Until its place is known, no tab may send it: if this one is closed, it is shown as refused.
    this.outbox.add(loading ? { ...entry, refused: words.composer.unplaced } : entry);
    this.#show(entry);
    if (loading && !this.#place(entry.client_message_id, await loading)) return;
    if (this.outbox.user || (await this.#becomeGuest(entry))) this.flush();
  }

  /** @param {OutboxEntry} entry */
  #show(entry) {
    this.conversation.addUnsent(entry);
    this.follow();
    this.draw();
  }

  /**
   * Put an entry behind the messages that were loaded; returns false if it is not to be sent.
   * @param {string} client_message_id
   * @param {boolean} areLoaded
   */
  #place(client_message_id, areLoaded) {
    const entry = this.outbox.get(client_message_id);
    if (!entry) return false;
    if (!this.#isHere(entry)) {
      // Another conversation is shown: whoever opens that of the entry shows it there.
      this.outbox.release(client_message_id);
      return false;
    }
    if (areLoaded) {
      const parent_message_id = this.#parentOfNext;
      this.outbox.change(client_message_id, { parent_message_id, refused: null });
      this.conversation.unsent.delete(client_message_id);
      this.#show(entry);
    } else {
      this.edit(client_message_id);
      this.composer.setHint(words.manage.failed, true);
    }
    return areLoaded;
  }

  /** The parent of the next message; undefined: the server takes the end of the conversation. */
  get #parentOfNext() {
    const { isAside, branch } = this.conversation;
    const follows = this.outbox.unsent.some((entry) => this.#isHere(entry));
    return isAside && !follows ? branch.last?.message_id : undefined;
  }

  /**
   * @param {string} content
   * @param {SendOptions} options
   * @param {boolean} isPlaced
   * @returns {OutboxEntry}
   */
  #entryOf(content, options, isPlaced) {
    const { sessionId } = this.conversation;
    const client_message_id = newId();
    if (!sessionId) this.#begins ??= client_message_id;
    return {
      client_message_id,
      session_id: sessionId,
      begins: sessionId ? undefined : this.#begins,
      content,
      ...options,
      parent_message_id:
        options.regenerate || !isPlaced
          ? undefined
          : (options.parent_message_id ?? this.#parentOfNext),
      agent: this.picker.chosen,
    };
  }

  /**
   * Whether the server takes a frame of that size; if not, a hint says so.
   * @param {ClientFrame} frame
   */
  fits(frame) {
    const size = new TextEncoder().encode(JSON.stringify(frame)).length;
    if (size <= data.frame_max_bytes) return true;
    const limit = Math.floor(data.frame_max_bytes / KB);
    this.composer.setHint(fill(words.composer.too_long, { limit }), true);
    return false;
  }

  /** @param {OutboxEntry} at */
  async #becomeGuest({ client_message_id, content }) {
    try {
      this.#becoming ??= becomeGuest();
      this.outbox.belongTo(await this.#becoming);
      this.connection.start();
      return true;
    } catch {
      this.#becoming = null;
      this.#forget(client_message_id);
      this.composer.keep(content, words.composer.guest_failed);
      this.draw();
      return false;
    }
  }

  /** @param {string} client_message_id */
  #forget(client_message_id) {
    this.#postponed.delete(client_message_id);
    this.outbox.remove(client_message_id);
    this.conversation.unsent.delete(client_message_id);
  }

  /**
   * Take over a message from a tab that was closed.
   * @param {OutboxEntry} entry
   */
  #adopt(entry) {
    if (!this.conversation.sessionId && !entry.session_id) {
      this.#begins ??= entry.begins;
      // What was refused in several closed tabs is all shown here.
      if (entry.refused) this.outbox.change(entry.client_message_id, { begins: this.#begins });
    }
    if (this.#isHere(entry)) this.conversation.addUnsent(entry);
    if (this.connection.state === "open") this.flush();
    this.draw();
  }

  /** @param {OutboxEntry} at */
  #isHere({ session_id, begins }) {
    const { sessionId } = this.conversation;
    return session_id ? session_id === sessionId : !sessionId && begins === this.#begins;
  }

  /** A new connection: nothing has been sent on it yet. */
  begin() {
    this.#sent = new Set();
    this.#claiming = new AbortController();
    this.outbox.claim((entry) => !entry.refused, this.#claiming.signal);
  }

  /** Without a connection, leave entries that nobody owns to other tabs. */
  pause() {
    this.#claiming?.abort();
  }

  /**
   * Send all entries that are not accepted; messages wait for the first one of a new session, for
   * one that begins a branch, and for a postponed one.
   */
  flush() {
    const held = new Set();
    for (const entry of this.outbox.unsent) {
      const place = placeOf(entry);
      const isPostponed = this.#postponed.has(entry.client_message_id);
      if (!held.has(place) && !isPostponed) this.#send(entry);
      if (!entry.session_id || isPlaced(entry) || isPostponed) held.add(place);
    }
  }

  /**
   * Send a message again after so many seconds or up to half as many more: the server has no room
   * for it yet.
   * @param {string} client_message_id
   * @param {number} seconds
   */
  postpone(client_message_id, seconds) {
    this.#postponed.add(client_message_id);
    const again = () => {
      this.#postponed.delete(client_message_id);
      this.#sent.delete(client_message_id);
      this.flush();
    };
    setTimeout(again, seconds * 1_000 * (1 + Math.random() / 2));
  }

  /** @param {OutboxEntry} entry */
  #send(entry) {
    if (this.#sent.has(entry.client_message_id)) return;
    if (!this.connection.send(frameOf(entry))) return;
    this.#sent.add(entry.client_message_id);
    this.outbox.change(entry.client_message_id, { isTried: true });
  }

  /**
   * The message is stored in that session: send those that have waited for it.
   * @param {string} client_message_id
   * @param {string} session_id
   */
  settle(client_message_id, session_id) {
    const begins = this.outbox.get(client_message_id)?.begins;
    this.outbox.remove(client_message_id);
    if (begins) this.outbox.moveTo(session_id, begins);
    this.flush();
  }

  /**
   * The message was refused: keep it and show why. Those that were to follow it on its branch would
   * come elsewhere without it, so they are not sent either.
   * @param {OutboxEntry} entry
   * @param {string} text
   */
  refuse(entry, text) {
    if (isPlaced(entry)) this.#holdBehind(entry);
    this.outbox.change(entry.client_message_id, { refused: text });
    if (!this.#isHere(entry)) this.outbox.release(entry.client_message_id);
    this.flush();
  }

  /** @param {OutboxEntry} entry */
  #holdBehind(entry) {
    const { unsent } = this.outbox;
    const later = unsent.slice(unsent.indexOf(entry) + 1);
    const refused = words.composer.unfollowed;
    for (const { client_message_id } of later.filter((one) => placeOf(one) === placeOf(entry))) {
      this.outbox.change(client_message_id, { refused });
      this.conversation.unsent.refuse(client_message_id, refused);
    }
  }

  /**
   * Stop a message that is not stored yet; one that cannot have reached the server, or that it had
   * no room for, is not sent at all.
   * @param {string} client_message_id
   */
  takeBack(client_message_id) {
    const entry = this.outbox.get(client_message_id);
    const isPostponed = this.#postponed.has(client_message_id);
    const isOut = !isPostponed && (entry?.isTried || entry?.regenerate);
    if (isOut) this.conversation.unsent.stopOnceAccepted(client_message_id);
    else if (entry?.regenerate) this.#forget(client_message_id);
    else if (entry) this.edit(client_message_id);
    // Later messages wait for a postponed one.
    if (isPostponed) this.flush();
  }

  /**
   * Send a refused message again.
   * @param {string} client_message_id
   */
  resend(client_message_id) {
    const { parent_message_id = this.#parentOfNext } = this.outbox.get(client_message_id) ?? {};
    const fields = { refused: null, parent_message_id };
    const entry = this.outbox.change(client_message_id, fields);
    if (!entry) return;
    this.conversation.unsent.delete(client_message_id);
    this.conversation.addUnsent(entry);
    this.#sent.delete(client_message_id);
    this.draw();
    this.flush();
  }

  /**
   * Put a refused message back into the composer, as the edit that it was.
   * @param {string} client_message_id
   */
  edit(client_message_id) {
    const { content = "", revises } = this.outbox.get(client_message_id) ?? {};
    this.#forget(client_message_id);
    this.reopen({ message_id: revises ?? "", text: content });
    this.draw();
  }

  /**
   * Show an edit in the composer again; without its message the text is a new one.
   * @param {Revision} edit
   */
  reopen({ message_id, text }) {
    const message = this.conversation.get(message_id);
    if (message) this.composer.reopenEdit(text, message);
    else this.composer.take(text);
  }

  /** Show unsent messages behind a history that was loaded again. */
  showUnsent() {
    for (const entry of this.outbox.entries) {
      if (this.#isHere(entry)) this.conversation.addUnsent(entry);
    }
  }
}

/**
 * The conversation of an entry, which may not exist yet.
 * @param {OutboxEntry} entry
 */
function placeOf({ session_id, begins }) {
  return session_id || begins;
}

/**
 * Whether it follows a certain message, and not the end of the conversation: what is sent behind it
 * has no place until it is accepted.
 * @param {OutboxEntry} entry
 */
function isPlaced({ parent_message_id }) {
  return parent_message_id !== undefined;
}

/** A random id; pages on plain HTTP have no `randomUUID`. */
function newId() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * @param {OutboxEntry} at
 * @returns {ClientFrame}
 */
function frameOf({ session_id, content, client_message_id, ...options }) {
  const { regenerate, agent, on_busy, parent_message_id } = options;
  const metadata = { client_message_id, regenerate, agent, on_busy, parent_message_id };
  return { type: "chat", session_id, content, metadata };
}
