/**
 * Controller of the one conversation on the page: sends what the user asks for and shows what the
 * server answers.
 */

import { clientIdOf } from "./conversation/unsent_messages.js";
import { describeEnding, labelOfAgent, nameOfTool } from "./page/labels.js";
import { notify } from "./page/page_title.js";
import { fill, words } from "./page/words.js";
import { addressOf } from "./sessions/list.js";
import { aimVisitor } from "./sessions/navigation.js";

export class Chat {
  /**
   * Edits of queued messages that the server has not confirmed, by run.
   * @type {Map<string, { session_id: string, content: string }>}
   */
  #edits = new Map();

  /**
   * @param {{ connection: Connection, outbox: Outbox, sender: Sender, conversation: Conversation,
   *   transcript: Transcript, history: PageHistory, approvals: Approvals, screen: ChatScreen,
   *   composer: Composer, queue: Queue, draft: Draft, kept: KeptTexts, sessions: SessionList,
   *   title: PageTitle, announce: Announce }} page
   */
  constructor(page) {
    const { connection, composer, queue, history } = page;
    this.connection = connection;
    this.composer = composer;
    this.history = history;
    this.outbox = page.outbox;
    this.sender = page.sender;
    this.conversation = page.conversation;
    this.transcript = page.transcript;
    this.approvals = page.approvals;
    this.screen = page.screen;
    this.draft = page.draft;
    this.kept = page.kept;
    this.sessions = page.sessions;
    this.title = page.title;
    this.announce = page.announce;
    connection.addEventListener("state", () => this.#follow());
    connection.addEventListener("frame", ({ detail }) => this.#receive(detail));
    composer.addEventListener("submit", (event) => {
      if (!this.#submitTyped(event.detail)) event.preventDefault();
    });
    composer.addEventListener("stop", () => this.stop());
    composer.addEventListener("edit", () => this.editLast());
    queue.addEventListener("change", (event) => {
      if (!this.#changeQueue(event.detail)) event.preventDefault();
    });
    queue.addEventListener("unsaved", ({ detail }) => {
      composer.keep(detail, words.composer.edited_late);
    });
    history.addEventListener("replace", () => this.#goOn());
    history.addEventListener("append", ({ detail: isEnd }) => this.#extend(isEnd));
    this.#findEdits();
    this.screen.draw();
  }

  // Requests of the user

  /**
   * Returns false, after a hint, if the text cannot be sent now.
   * @param {Typed} typed
   */
  #submitTyped({ text, isUrgent, edited }) {
    const run_id = edited && this.#waitingRunOf(edited);
    if (run_id) return this.#changeQueue({ content: text, metadata: { op: "edit", run_id } });
    return this.submit(text, {
      on_busy: isUrgent ? "interrupt" : undefined,
      parent_message_id: edited ? (edited.parent_message_id ?? "") : undefined,
      revises: edited?.message_id,
    });
  }

  /**
   * Send a message. `options`: `on_busy`; `parent_message_id`, the message that it continues; or
   * `regenerate`, the reply that another one is requested for. Without these two it follows the
   * last message, which may have to be loaded first. Returns false, after a hint, if it is too large.
   * @param {string} content
   * @param {SendOptions} options
   */
  submit(content, options = {}) {
    const { later } = this.history;
    const isPlaced = options.regenerate ?? options.parent_message_id;
    this.history.remain();
    const loading = later.address && isPlaced === undefined ? later.loadAll() : undefined;
    return this.sender.submit(content, options, loading);
  }

  /** Stop the reply that is being written or about to be. */
  stop(message = this.conversation.active) {
    if (!message) return;
    const { run_id, message_id } = message;
    if (run_id) {
      this.conversation.journal.cancelling.add(run_id);
      this.#cancel(run_id);
    } else {
      this.sender.takeBack(clientIdOf(message_id));
    }
    this.screen.draw();
  }

  /**
   * Withdraw a message that waits in the queue or is about to.
   * @param {Message} message
   */
  drop(message) {
    const { run_id } = message;
    const isBehind = run_id && message !== this.conversation.active;
    if (isBehind) this.#changeQueue({ content: "", metadata: { op: "remove", run_id } });
    else this.stop(message);
  }

  /**
   * Send a `queue` frame; returns false, after showing a hint, if it is too large or there is no
   * open socket.
   * @param {{ session_id?: string, content: string, metadata: QueueMetadata }} change
   */
  #changeQueue({ session_id = this.conversation.sessionId, content, metadata }) {
    /** @type {ClientFrame} */
    const frame = { type: "queue", session_id, content, metadata };
    if (!this.sender.fits(frame)) return false;
    const isSent = this.connection.send(frame);
    if (!isSent) this.#tellFailure();
    if (isSent && metadata.op === "edit") {
      this.#keepEdit(metadata.run_id ?? "", { session_id, content });
    }
    return isSent;
  }

  /** Edits that a page before this one in the browser had sent, and that may not have arrived. */
  #findEdits() {
    for (const run_id of this.kept.idsOf("queued")) {
      const text = this.kept.read("queued", run_id);
      if (text) this.#edits.set(run_id, JSON.parse(text));
    }
  }

  /**
   * @param {string} run_id
   * @param {{ session_id: string, content: string }} edit
   */
  #keepEdit(run_id, edit) {
    this.#edits.set(run_id, edit);
    this.kept.write("queued", run_id, JSON.stringify(edit));
  }

  /** Send edits again that a lost connection may have swallowed. */
  #sendEdits() {
    for (const [run_id, edit] of this.#edits) {
      this.#changeQueue({ ...edit, metadata: { op: "edit", run_id } });
    }
  }

  /** Forget confirmed edits; one that came too late goes back into the composer. */
  #settleEdits() {
    const { sessionId, queue, messages } = this.conversation;
    for (const [run_id, { session_id, content }] of this.#edits) {
      if (session_id !== sessionId) continue;
      const entry = queue.find((queued) => queued.run_id === run_id);
      if (entry && entry.content !== content) continue;
      this.#edits.delete(run_id);
      this.kept.write("queued", run_id, "");
      const reply = messages.find((message) => message.run_id === run_id);
      const prompt = this.conversation.get(reply?.parent_message_id);
      const isLate = !entry && prompt && this.transcript.textOf(prompt) !== content;
      if (isLate) this.composer.keep(content, words.composer.edited_late);
    }
  }

  #tellFailure() {
    this.composer.setHint(words.manage.failed, true);
  }

  /** @param {string} run_id */
  #cancel(run_id, session_id = this.conversation.sessionId) {
    this.connection.send({ type: "cancel", session_id, metadata: { run_id } });
  }

  /**
   * Answer an approval request of the reply.
   * @param {Answer} answer
   */
  respond(answer) {
    this.composer.focus();
    this.approvals.answer(answer);
    this.screen.draw();
  }

  /** Put the last message of the user back into the composer, to send another in its place. */
  editLast() {
    this.revise(this.conversation.messages.findLast(({ role }) => role === "user"));
  }

  /**
   * The same for any message of the user.
   * @param {Message | undefined} message
   */
  revise(message) {
    if (!message || message.state) return;
    if (this.conversation.isBusy && !this.#waitingRunOf(message)) return;
    const text = this.transcript.textOf(message);
    if (text) this.composer.beginEdit(text, message);
  }

  /**
   * The queued run that will answer a message, if it is the only reply to it; else undefined.
   * @param {Message} message
   */
  #waitingRunOf({ message_id }) {
    const { branch, messages } = this.conversation;
    const reply = messages.find((one) => one.parent_message_id === message_id);
    const isWaiting = reply?.run_status === "queued" && branch.siblingsOf(reply).length < 2;
    return isWaiting ? reply.run_id : undefined;
  }

  /**
   * Show the branch of the message `id` in place of `shown`.
   * @param {string} id
   * @param {{ shown: HTMLElement, isNext: boolean }} at
   */
  switchTo(id, at) {
    this.history.switchTo(id, at).catch(() => this.#tellFailure());
  }

  /** Go to the end of the conversation, even if it has not been loaded yet. */
  showLatest() {
    this.history.showLatest().catch(() => this.#tellFailure());
  }

  // Connection

  get #isOpen() {
    return this.connection.state === "open";
  }

  #follow() {
    this.sender.pause();
    if (this.#isOpen) {
      this.sender.begin();
      this.#resume();
      this.sender.flush();
      for (const run_id of this.conversation.journal.cancelling) this.#cancel(run_id);
      this.#sendEdits();
      this.approvals.sendAgain();
    }
    this.screen.draw();
  }

  #resume() {
    const { sessionId: session_id } = this.conversation;
    if (!session_id) return;
    const metadata = this.conversation.beginResume();
    this.connection.send({ type: "resume", session_id, metadata });
  }

  // History

  /** Other messages are shown: add the unsent ones behind them, and resume from there. */
  #goOn() {
    this.sender.showUnsent();
    this.#resume();
    this.screen.draw();
  }

  /**
   * Later messages were appended; at the end of the conversation, follow it live again.
   * @param {boolean} isEnd
   */
  #extend(isEnd) {
    if (isEnd) this.#resume();
    this.screen.draw();
  }

  /** Too much was missed to catch up: load the history as the server renders it now. */
  #reload() {
    this.history.reload().catch(() => this.connection.retry());
  }

  // Frames from the server

  /** @param {ServerFrame} frame */
  #receive(frame) {
    if (frame.type === "ping") this.connection.send({ type: "pong" });
    // The server does not know the language of this page.
    if (frame.type === "error") frame.content = words.errors[frame.metadata.code] ?? frame.content;
    for (const effect of this.conversation.apply(frame)) this.#react(effect);
    if (this.#edits.size) this.#settleEdits();
    this.screen.draw();
  }

  /** @param {Effect} effect */
  #react(effect) {
    switch (effect.kind) {
      case "resume":
        return this.#resume();
      case "reload":
        return this.#reload();
      case "accepted":
        return this.#accepted(effect);
      case "cancel":
        return this.#cancel(effect.run_id, effect.session_id);
      case "refused":
        return this.#refused(effect);
      case "postponed":
        return this.sender.postpone(effect.client_message_id, effect.retry_after);
      case "started":
        return this.announce(fill(words.announce.started, { agent: labelOfAgent(effect.message) }));
      case "tool":
        return this.announce(describeTool(effect));
      case "asked":
        return this.#asked(effect);
      case "answered":
        return this.#answered(effect);
      case "ended":
        return this.#ended(effect.message);
      case "retry":
        return this.connection.retry();
      case "missing":
        return this.composer.setHint(words.missing, true);
      default:
        return this.composer.setHint(effect.text, true);
    }
  }

  /** @param {Extract<Effect, { kind: "accepted" }>} effect */
  #accepted({ client_message_id, session_id }) {
    this.sender.settle(client_message_id, session_id);
    if (session_id === this.conversation.sessionId) this.#settleIn(session_id);
  }

  /**
   * The first message of a conversation was accepted: show its address and follow it.
   * @param {string} session_id
   */
  #settleIn(session_id) {
    const isNew = location.pathname !== addressOf(session_id);
    if (!this.conversation.isAside) this.history.tellBranch();
    if (!isNew) return;
    aimVisitor();
    this.draft.store();
    this.sessions.mark();
    this.#resume();
  }

  /** @param {Extract<Effect, { kind: "refused" }>} effect */
  #refused({ client_message_id, text }) {
    const entry = this.outbox.get(client_message_id);
    if (!entry) return;
    this.announce(text);
    if (entry.regenerate) {
      this.outbox.remove(client_message_id);
      this.composer.setHint(text, true);
      this.#reload();
    } else {
      this.sender.refuse(entry, text);
    }
  }

  /** @param {Extract<Effect, { kind: "asked" }>} effect */
  #asked({ message, request_id }) {
    const text = fill(words.announce.asked, { agent: labelOfAgent(message) });
    this.announce(text);
    notify(text, this.conversation.sessionId);
    this.approvals.bring(request_id);
  }

  /** @param {Extract<Effect, { kind: "answered" }>} effect */
  #answered({ request_id, duplicate }) {
    this.approvals.settle(request_id);
    if (duplicate) this.composer.setHint(words.approvals.before);
  }

  /** @param {Message} message */
  #ended(message) {
    this.title.tellReply();
    const completed = fill(words.announce.completed, { agent: labelOfAgent(message) });
    this.announce(describeEnding(message) || completed);
    notify(describeEnding(message) || completed, this.conversation.sessionId);
  }
}

/** @param {Extract<Effect, { kind: "tool" }>} effect */
function describeTool({ event, name }) {
  return fill(words.steps[event.slice("tool.".length)], { name: nameOfTool(name) });
}
