/**
 * The state of one session on the page, built from its frames; it knows no page, socket or clock.
 *
 * `apply(frame)` applies a frame and returns effects, which the caller must act on:
 *   {kind: "resume"}                           a gap: send `resume` with `beginResume()` again
 *   {kind: "reload"}                           too much was missed: load the history again
 *   {kind: "accepted", client_message_id, session_id}
 *   {kind: "cancel", session_id, run_id}       the reply was stopped before it had a run
 *   {kind: "refused", client_message_id, text} nothing was stored
 *   {kind: "postponed", client_message_id, retry_after} nothing was stored, and there will be room
 *   {kind: "started" | "ended", message}
 *   {kind: "tool", event, name}                a tool has begun, or failed
 *   {kind: "asked", message, request_id}       the reply waits for an answer
 *   {kind: "answered", request_id, duplicate}  the server has this or an earlier answer
 *   {kind: "retry"}                            the session could not be followed: reconnect
 *   {kind: "notice", text} | {kind: "missing"}
 */

import { isActive } from "./branch.js";
import { RunJournal } from "./run_journal.js";
import { StoredMessages } from "./stored_messages.js";
import { UnsentMessages } from "./unsent_messages.js";

export class Conversation {
  /** @param {PageData} data the data of a rendered page */
  constructor(data) {
    this.sessionId = data.session_id;
    this.stored = new StoredMessages(data);
    this.journal = new RunJournal(this.stored, data);
    this.unsent = new UnsentMessages();
    this.queue = data.queue;
  }

  /**
   * Replace the state by that of another rendered page of the session. Messages before that page
   * stay if they are known; returns whether there are any.
   * @param {PageData} data
   */
  load(data) {
    const { branch } = this;
    this.open({ ...data, session_id: this.sessionId });
    return this.branch.keepEarlier(branch);
  }

  /**
   * Become the conversation of another rendered page. Messages that were stopped before they are
   * accepted are stopped then even so.
   * @param {PageData} data
   */
  open(data) {
    const unsent = this.unsent.renew();
    Object.assign(this, new Conversation(data), { unsent });
  }

  /**
   * Add messages from before the first one, as rendered by the server.
   * @param {PageData} data
   */
  addEarlier({ messages, siblings }) {
    this.branch.addEarlier(messages, siblings);
  }

  /**
   * Add messages from after the last one; at the end of the conversation, continue from there.
   * @param {PageData} data
   * @param {boolean} isEnd
   */
  addLater(data, isEnd) {
    this.branch.addLater(data.messages, data.siblings);
    if (!isEnd) return;
    this.stored.restartAt(data.rev);
    this.journal.restartAt(data);
    if (!data.branch) this.branch.unchoose();
  }

  get branch() {
    return this.stored.branch;
  }

  /** Whether another branch than the current one of the conversation is shown. */
  get isAside() {
    return Boolean(this.branch.chosen);
  }

  /** The messages that are shown, oldest first; unsent ones come last. */
  get messages() {
    return this.unsent.follow(this.branch.path);
  }

  /**
   * The message with that id, stored or unsent.
   * @param {string | null | undefined} id
   */
  get(id) {
    return this.branch.get(id) ?? this.messages.find((message) => message.message_id === id);
  }

  /** The reply that is worked on or about to be; undefined if there is none. */
  get active() {
    return this.unsent.size ? this.messages.find(isActive) : this.branch.active[0];
  }

  get isBusy() {
    return this.active !== undefined;
  }

  /**
   * Whether a stop of the reply was requested, even before it had a run.
   * @param {Message} message
   */
  isStopping({ run_id, message_id }) {
    return this.journal.cancelling.has(run_id ?? "") || this.unsent.isUnwanted(message_id);
  }

  /**
   * The message's place in the queue, from 1; 0 if it is not in the queue.
   * @param {Message} message
   */
  positionOf(message) {
    return 1 + this.queue.findIndex((entry) => entry.run_id === message.run_id);
  }

  /** The metadata of `resume`: the cursor of this page. */
  beginResume() {
    return this.journal.beginResume();
  }

  /**
   * Show an unsent entry of the outbox.
   * @param {OutboxEntry} entry
   */
  addUnsent(entry) {
    this.unsent.add(entry, this.branch.get(entry.regenerate)?.parent_message_id);
  }

  /**
   * @param {ServerFrame} frame
   * @returns {Effect[]}
   */
  apply(frame) {
    const isOwn = frame.session_id === this.sessionId;
    if (isOwn && this.journal.isElsewhere(frame)) return this.journal.skip(frame);
    switch (frame.type) {
      case "status":
        return this.#applyStatus(frame, isOwn);
      case "token":
        return isOwn ? this.journal.addToken(frame) : [];
      case "complete":
        return isOwn ? this.journal.end(frame) : [];
      case "error":
        if (!frame.metadata.terminal) return this.#refuse(frame);
        return isOwn ? this.journal.end(frame) : [];
      default:
        return [];
    }
  }

  /**
   * @param {StatusFrame} frame
   * @param {boolean} isOwn
   * @returns {Effect[]}
   */
  #applyStatus({ session_id = "", metadata: at }, isOwn) {
    if (at.event === "accepted") return this.#accept(session_id, at);
    if (!isOwn) return [];
    switch (at.event) {
      case "message.created":
      case "message.updated":
        if (this.unsent.delete(at.client_message_id)) this.branch.unchoose();
        this.stored.store(at);
        return [];
      case "queue.changed":
        this.stored.noteRev(at.rev);
        this.queue = at.queue;
        return [];
      default:
        return this.journal.applyStatus(at);
    }
  }

  /**
   * @param {string} session_id
   * @param {Metadata<"accepted">} at
   * @returns {Effect[]}
   */
  #accept(session_id, at) {
    const { client_message_id = "", run_id } = at;
    const isMine = this.unsent.has(client_message_id);
    if (isMine) this.sessionId ||= session_id;
    if (isMine && session_id === this.sessionId) this.#showAccepted(client_message_id, at);
    /** @type {Effect} */
    const accepted = { kind: "accepted", client_message_id, session_id };
    if (!this.unsent.takeUnwanted(client_message_id)) return [accepted];
    if (session_id === this.sessionId) this.journal.cancelling.add(run_id);
    return [accepted, { kind: "cancel", session_id, run_id }];
  }

  /**
   * Show the accepted message and its reply until the server sends them.
   * @param {string} client_message_id
   * @param {Metadata<"accepted">} at
   */
  #showAccepted(client_message_id, { user_message_id, message_id, run_id }) {
    const prompt = this.unsent.promptOf(client_message_id);
    const last = this.stored.lastId;
    this.unsent.delete(client_message_id);
    this.branch.unchoose();
    if (prompt && !this.stored.get(user_message_id)) {
      const { parent_message_id = last } = prompt;
      this.stored.addLast(user_message_id, { ...prompt, parent_message_id, state: "" });
    }
    if (!this.stored.get(message_id)) this.stored.addReply(message_id, user_message_id, run_id);
  }

  /**
   * @param {ErrorFrame} frame
   * @returns {Effect[]}
   */
  #refuse(frame) {
    const { client_message_id, code, retry_after } = frame.metadata;
    const isElsewhere = frame.session_id && frame.session_id !== this.sessionId;
    if (!client_message_id) return isElsewhere ? [] : this.journal.refuse(frame);
    if (code === "unavailable" && retry_after) {
      return [{ kind: "postponed", client_message_id, retry_after }];
    }
    this.unsent.refuse(client_message_id, frame.content);
    return [{ kind: "refused", client_message_id, text: frame.content }];
  }
}
