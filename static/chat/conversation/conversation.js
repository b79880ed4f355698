/**
 * What one session shows, as its frames say: no page, no socket, no clock.
 *
 * `apply(frame)` takes in a frame and returns what the caller must do:
 *   {kind: "resume"}                           a gap: send `resume` with `beginResume()` again
 *   {kind: "reload"}                           too much was missed: load the history again
 *   {kind: "accepted", client_message_id, session_id}
 *   {kind: "cancel", run_id}                   it was stopped before it had a run
 *   {kind: "refused", client_message_id, text} nothing was stored
 *   {kind: "started" | "ended", message}
 *   {kind: "tool", event, name}                a tool has begun, or failed
 *   {kind: "asked", message, request_id}       the reply waits for an answer
 *   {kind: "answered", request_id, duplicate}  the server has this page's answer, or an earlier one
 *   {kind: "retry"}                            it could not be followed: connect anew
 *   {kind: "notice", text} | {kind: "missing"}
 */

import { RunJournal } from "./run_journal.js";
import { isActive, StoredMessages } from "./stored_messages.js";
import { UnsentMessages } from "./unsent_messages.js";

export class Conversation {
  /** @param {PageData} data what a rendered page shows */
  constructor(data) {
    this.sessionId = data.session_id;
    this.stored = new StoredMessages(data);
    this.journal = new RunJournal(this.stored, data);
    this.unsent = new UnsentMessages();
    this.queue = data.queue;
  }

  /**
   * Begin again from another rendered page of the session.
   * @param {PageData} data
   */
  load(data) {
    Object.assign(this, new Conversation({ ...data, session_id: this.sessionId }));
  }

  /**
   * Add messages from before the first one, as the server has rendered them.
   * @param {PageData} data
   */
  addEarlier({ messages, siblings }) {
    this.branch.addEarlier(messages, siblings);
  }

  /**
   * Add messages from behind the last one; where they come to the end, go on from there.
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

  /** Whether something else is shown than the branch that the conversation goes on. */
  get isAside() {
    return Boolean(this.branch.chosen);
  }

  /** What is sent now goes on from here; undefined: from wherever the conversation is. */
  get parentOfNext() {
    return this.isAside && !this.unsent.size ? this.branch.last?.message_id : undefined;
  }

  /** The messages that are shown, oldest first; what is not stored yet comes last. */
  get messages() {
    return this.unsent.follow(this.branch.path);
  }

  /**
   * The message of that id, stored or not.
   * @param {string | null | undefined} id
   */
  get(id) {
    return this.branch.get(id) ?? this.messages.find((message) => message.message_id === id);
  }

  /** The reply that is worked on or about to be. */
  get active() {
    return this.messages.find(isActive);
  }

  get isBusy() {
    return this.active !== undefined;
  }

  /**
   * Whether the reply was asked to stop, also before it had a run.
   * @param {Message} message
   */
  isStopping({ run_id, message_id }) {
    return this.journal.cancelling.has(run_id ?? "") || this.unsent.isUnwanted(message_id);
  }

  /**
   * How many messages wait behind the active reply; 0 for that reply itself.
   * @param {Message} message
   */
  positionOf(message) {
    return 1 + this.queue.findIndex((entry) => entry.run_id === message.run_id);
  }

  /** The metadata of `resume`: what is shown already. */
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
    this.journal.cancelling.add(run_id);
    return [accepted, { kind: "cancel", run_id }];
  }

  /**
   * Show the stored messages until they come themselves.
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
    const { client_message_id } = frame.metadata;
    if (!client_message_id) return this.journal.refuse(frame);
    this.unsent.refuse(client_message_id, frame.content);
    return [{ kind: "refused", client_message_id, text: frame.content }];
  }
}
