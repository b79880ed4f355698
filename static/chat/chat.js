/**
 * The page's one conversation at work: what is typed goes out, what comes in is shown.
 *
 * It knows the parts of the page; they do not know each other.
 */

import { focusApproval, markSent } from "./approval.js";
import { Conversation } from "./conversation.js";
import { becomeGuest } from "./guest.js";
import { loadHistory } from "./history.js";
import { newId } from "./ids.js";
import { agentOf } from "./message_view.js";
import { addressOf } from "./session_list.js";
import { describePlace, focusSwitcher } from "./switcher.js";
import { count, data, fill, words } from "./words.js";

const KB = 1_024;

export class Chat {
  constructor({ connection, outbox, transcript, composer, queue, sessions, ...rest }) {
    Object.assign(this, { connection, outbox, transcript, composer, queue, sessions });
    const { picker, announce, title } = rest;
    Object.assign(this, { picker, announce, title });
    this.sent = new Set();
    this.answers = new Map();
    this.conversation = new Conversation(data);
    transcript.adopt(this.conversation);
    outbox.addEventListener("claim", ({ detail }) => this.#adopt(detail));
    const { sessionId } = this.conversation;
    outbox.claim((entry) => entry.session_id === sessionId);
    connection.addEventListener("state", () => this.#follow());
    connection.addEventListener("frame", (event) => this.#receive(event.detail));
    composer.addEventListener("submit", (event) => this.#submitTyped(event.detail));
    composer.addEventListener("stop", () => this.stop());
    queue.addEventListener("change", (event) => this.#changeQueue(event.detail));
    composer.addEventListener("edit", () => this.editLast());
    this.#draw();
  }

  get #isOpen() {
    return this.connection.state === "open";
  }

  // Out

  #submitTyped({ text, isUrgent, edited }) {
    const run_id = edited && this.#waitingRunOf(edited);
    if (run_id) return this.#changeQueue({ content: text, metadata: { op: "edit", run_id } });
    return this.submit(text, {
      on_busy: isUrgent ? "interrupt" : undefined,
      parent_message_id: edited ? (edited.parent_message_id ?? "") : undefined,
    });
  }

  /**
   * Send a message; `options`: `on_busy`, `parent_message_id` for one that goes on from there, or
   * `regenerate` to ask for another reply in place of that one.
   */
  async submit(content, options = {}) {
    if (!(await this.later.loadAll())) return this.#keep(content, words.manage.failed);
    const { parentOfNext, sessionId } = this.conversation;
    const client_message_id = newId();
    if (!sessionId) this.begins ??= client_message_id;
    const entry = {
      client_message_id,
      session_id: sessionId,
      begins: sessionId ? undefined : this.begins,
      content,
      ...options,
      parent_message_id: options.regenerate ? undefined : (options.parent_message_id ?? parentOfNext),
      agent: sessionId ? undefined : this.picker.chosen,
    };
    if (!this.#fits(entry)) return;
    this.outbox.add(entry);
    this.conversation.addPending(entry);
    this.transcript.follow();
    this.#draw();
    if (this.outbox.user || (await this.#becomeGuest(entry))) this.#flush();
  }

  #fits(entry) {
    const size = new TextEncoder().encode(JSON.stringify(frameOf(entry))).length;
    if (size <= data.frame_max_bytes) return true;
    const limit = Math.floor(data.frame_max_bytes / KB);
    this.#keep(entry.content, fill(words.composer.too_long, { limit }));
    return false;
  }

  /** Back into the box with it, and say why. */
  #keep(content, hint) {
    this.composer.take(content);
    this.composer.setHint(hint, true);
  }

  async #becomeGuest({ client_message_id, content }) {
    try {
      this.becoming ??= becomeGuest();
      this.outbox.belongTo(await this.becoming);
      this.connection.start();
      return true;
    } catch {
      this.becoming = null;
      this.outbox.remove(client_message_id);
      this.conversation.forget(client_message_id);
      this.#keep(content, words.composer.guest_failed);
      this.#draw();
      return false;
    }
  }

  /** Care for what was typed in a tab that is gone. */
  #adopt(entry) {
    if (!this.conversation.sessionId && !entry.session_id) this.begins ??= entry.begins;
    if (this.#isHere(entry)) this.conversation.addPending(entry);
    if (this.#isOpen) this.#flush();
    this.#draw();
  }

  #isHere({ session_id, begins }) {
    const { sessionId } = this.conversation;
    return session_id ? session_id === sessionId : !sessionId && begins === this.begins;
  }

  /** Send all that is not accepted yet; a second message of a new session waits for the first. */
  #flush() {
    const beginning = new Set();
    for (const entry of this.outbox.unsent) {
      if (entry.session_id || !beginning.has(entry.begins)) this.#send(entry);
      if (!entry.session_id) beginning.add(entry.begins);
    }
  }

  #send(entry) {
    if (this.sent.has(entry.client_message_id)) return;
    if (!this.connection.send(frameOf(entry))) return;
    this.sent.add(entry.client_message_id);
    this.outbox.change(entry.client_message_id, { isTried: true });
  }

  /** Stop the reply that is written, or about to be. */
  stop(message = this.conversation.active) {
    if (!message) return;
    const { run_id, message_id } = message;
    if (run_id) {
      this.conversation.cancelling.add(run_id);
      this.#cancel(run_id);
    } else {
      this.#takeBack(message_id.replace("reply:", ""), message_id);
    }
    this.#draw();
  }

  /** Take back a message that waits, or is about to. */
  drop(message) {
    const { run_id } = message;
    const isBehind = run_id && message !== this.conversation.active;
    if (isBehind) this.#changeQueue({ content: "", metadata: { op: "remove", run_id } });
    else this.stop(message);
  }

  #changeQueue({ content, metadata }) {
    const { sessionId } = this.conversation;
    this.connection.send({ type: "queue", session_id: sessionId, content, metadata });
  }

  /** Not stored yet: if it cannot have reached the server it is not sent at all. */
  #takeBack(client_message_id, message_id) {
    const entry = this.outbox.get(client_message_id);
    if (entry?.isTried || entry?.regenerate) this.conversation.unwanted.add(message_id);
    else if (entry) this.edit(client_message_id);
  }

  #cancel(run_id) {
    const { sessionId } = this.conversation;
    this.connection.send({ type: "cancel", session_id: sessionId, metadata: { run_id } });
  }

  /** Answer a request; sent anew with each connection until the server has said what holds. */
  respond(answer) {
    this.answers.set(answer.request_id, answer);
    this.composer.focus();
    this.#answer(answer);
    this.#draw();
  }

  #answer(metadata) {
    const { sessionId } = this.conversation;
    this.connection.send({ type: "respond", session_id: sessionId, metadata });
  }

  /** Take the last message back into the composer, to send another in its place. */
  editLast() {
    this.#revise(this.conversation.messages.findLast(({ role }) => role === "user"));
  }

  /** The same with any message. */
  revise(id) {
    this.#revise(this.conversation.get(id));
  }

  /** The run that is to answer a message and has not begun, where it is the only one. */
  #waitingRunOf({ message_id }) {
    const { branch, messages } = this.conversation;
    const reply = messages.find((one) => one.parent_message_id === message_id);
    const isWaiting = reply?.run_status === "queued" && branch.siblingsOf(reply).length < 2;
    return isWaiting ? reply.run_id : undefined;
  }

  #revise(message) {
    if (this.conversation.isBusy && !this.#waitingRunOf(message ?? {})) return;
    const text = message && this.transcript.textOf(message);
    if (text && !message.state) this.composer.beginEdit(text, message);
  }

  /** Show messages from before the first one. */
  addEarlier({ data: earlier, messages }) {
    this.conversation.addEarlier(earlier);
    this.transcript.prepend(messages, this.conversation);
  }

  /** Show messages from behind the last one; at the end the page is live again. */
  addLater({ data: later, messages, page }) {
    const isEnd = !page.querySelector("#later [data-page]");
    this.conversation.addLater(later, isEnd);
    this.transcript.append(messages, this.conversation);
    if (isEnd) this.#resume();
    this.#tellBranch();
    this.#draw();
  }

  /** Show the branch of another message in place of `shown`, the one that has its place now. */
  async switchTo(id, { shown, isNext }) {
    const { top } = shown.getBoundingClientRect();
    try {
      this.#take(await loadHistory(addressOf(this.conversation.sessionId, id)));
    } catch {
      return this.composer.setHint(words.manage.failed, true);
    }
    this.transcript.hold(id, top);
    this.#tellBranch();
    focusSwitcher(id, { isNext });
    this.announce(describePlace(this.conversation.branch, id));
  }

  /** Go to the end of the conversation, also where that has not been loaded. */
  async showLatest() {
    try {
      if (this.later.address) this.#take(await loadHistory(addressOf(this.conversation.sessionId)));
    } catch {
      return this.composer.setHint(words.manage.failed, true);
    }
    this.#tellBranch();
    this.transcript.follow();
  }

  /** The address names what is shown. */
  #tellBranch() {
    const { sessionId, branch } = this.conversation;
    const address = addressOf(sessionId, branch.chosen);
    if (sessionId) history.replaceState(history.state, "", address);
    if (!branch.chosen) this.later.clear();
  }

  /** Send a refused message again. */
  resend(client_message_id) {
    this.outbox.change(client_message_id, { refused: null });
    this.conversation.forget(client_message_id);
    this.conversation.addPending(this.outbox.get(client_message_id));
    this.sent.delete(client_message_id);
    this.#draw();
    this.#flush();
  }

  /** Take a refused message back into the composer. */
  edit(client_message_id) {
    const { content } = this.outbox.get(client_message_id);
    this.outbox.remove(client_message_id);
    this.conversation.forget(client_message_id);
    this.composer.take(content);
    this.#draw();
  }

  // The connection

  #follow() {
    this.claiming?.abort();
    if (this.#isOpen) {
      this.sent = new Set();
      this.claiming = new AbortController();
      this.outbox.claim((entry) => !entry.refused, this.claiming.signal);
      this.#resume();
      this.#flush();
      for (const id of this.conversation.cancelling) this.#cancel(id);
      for (const answer of this.answers.values()) this.#answer(answer);
    }
    this.#draw();
  }

  #resume() {
    const { conversation } = this;
    if (!conversation.sessionId) return;
    const metadata = conversation.beginResume();
    this.connection.send({ type: "resume", session_id: conversation.sessionId, metadata });
  }

  // In

  #receive(frame) {
    const event = frame.metadata?.event ?? "";
    if (frame.type === "ping") this.connection.send({ type: "pong" });
    if (event.startsWith("session.")) this.#list(frame);
    for (const effect of this.conversation.apply(frame)) this.#react(effect);
    this.#draw();
  }

  #react(effect) {
    switch (effect.kind) {
      case "resume":
        return this.#resume();
      case "reload":
        return this.#reload();
      case "accepted":
        return this.#accepted(effect);
      case "cancel":
        return this.#cancel(effect.run_id);
      case "refused":
        return this.#refused(effect);
      case "started":
        return this.announce(fill(words.announce.started, { agent: agentOf(effect.message) }));
      case "tool":
        return this.announce(toolWords(effect));
      case "asked":
        return this.#asked(effect);
      case "answered":
        return this.#answered(effect);
      case "ended":
        return this.#ended(effect.message);
      case "missing":
        return this.composer.setHint(words.missing, true);
      default:
        return this.composer.setHint(effect.text, true);
    }
  }

  #accepted({ client_message_id, session_id }) {
    const begins = this.outbox.get(client_message_id)?.begins;
    this.outbox.remove(client_message_id);
    if (begins) this.outbox.moveTo(session_id, begins);
    if (session_id === this.conversation.sessionId) this.#settleIn(session_id);
    if (begins) this.#flush();
  }

  /** The conversation has an address now, and is followed like any other. */
  #settleIn(session_id) {
    const isNew = location.pathname !== addressOf(session_id);
    if (!this.conversation.isAside) this.#tellBranch();
    if (!isNew) return;
    this.sessions.mark();
    this.#resume();
  }

  #refused({ client_message_id, text }) {
    const entry = this.outbox.get(client_message_id);
    if (!entry) return;
    this.announce(text);
    if (entry.regenerate) {
      this.outbox.remove(client_message_id);
      this.composer.setHint(text, true);
      this.#reload();
    } else {
      this.outbox.change(client_message_id, { refused: text });
      if (!this.#isHere(entry)) this.outbox.release(client_message_id);
    }
  }

  #asked({ message, request_id }) {
    this.announce(fill(words.announce.asked, { agent: agentOf(message) }));
    this.focusing = request_id;
  }

  #answered({ request_id, duplicate }) {
    this.answers.delete(request_id);
    if (duplicate) this.composer.setHint(words.approvals.before);
  }

  #ended(message) {
    const { run_status, error_text, error_code, reason } = message;
    const said = error_text ?? words.errors[error_code] ?? words.endings[reason];
    const agent = agentOf(message);
    this.title.tellReply();
    this.announce(run_status === "completed" ? fill(words.announce.completed, { agent }) : said);
  }

  /** Too much was missed to be told: take what the server renders now. */
  async #reload() {
    try {
      const { sessionId, branch } = this.conversation;
      this.#take(await loadHistory(addressOf(sessionId, branch.chosen)));
    } catch {
      this.connection.retry();
    }
  }

  #take(fresh) {
    this.conversation.load(fresh.data);
    this.transcript.replace(fresh.messages, this.conversation);
    this.earlier.goOnFrom(fresh);
    this.later.goOnFrom(fresh);
    this.#showUnsent();
    this.#resume();
    this.#draw();
  }

  #showUnsent() {
    for (const entry of this.outbox.entries) {
      if (this.#isHere(entry)) this.conversation.addPending(entry);
    }
  }

  #list(frame) {
    this.sessions.apply(frame);
    const { title } = frame.metadata;
    if (frame.session_id !== this.conversation.sessionId || !title) return;
    this.title.rename(title);
  }

  // What is shown

  /** Once a frame is enough; a hidden page has no frames. */
  #draw() {
    if (this.isDrawing) return;
    this.isDrawing = true;
    const draw = () => {
      this.isDrawing = false;
      this.transcript.sync(this.conversation, this.#isOpen || !this.outbox.user);
      this.composer.setBusy(this.conversation.isBusy);
      this.queue.show(this.conversation.queue);
      this.title.setBusy(this.conversation.isBusy);
      this.#showRequests();
      this.#tellQueue();
    };
    if (document.visibilityState === "visible") requestAnimationFrame(draw);
    else setTimeout(draw);
  }

  #showRequests() {
    markSent(this.answers);
    if (this.focusing) focusApproval(this.focusing);
    this.focusing = null;
  }

  #tellQueue() {
    const { length } = this.conversation.queue;
    if (length === this.queued) return;
    this.queued = length;
    const { queued_one: one, queued: many } = words.composer;
    this.composer.setHint(length ? count(one, many, length) : "");
  }
}

function frameOf({ session_id, content, client_message_id, ...options }) {
  const { regenerate, agent, on_busy, parent_message_id } = options;
  const metadata = { client_message_id, regenerate, agent, on_busy, parent_message_id };
  return { type: "chat", session_id, content, metadata };
}

function toolWords({ event, name }) {
  return fill(words.steps[event.slice("tool.".length)], { name: name.replaceAll("_", " ") });
}
