/**
 * The page's one conversation at work: what is typed goes out, what comes in is shown.
 *
 * It knows the parts of the page; they do not know each other.
 */

import { loadHistory } from "./api.js";
import { focusApproval, markSent } from "./approval.js";
import { Conversation } from "./conversation.js";
import { agentOf, endingOf } from "./message_view.js";
import { Sender } from "./sender.js";
import { addressOf } from "./session_list.js";
import { describePlace, focusSwitcher } from "./switcher.js";
import { count, data, fill, words } from "./words.js";

export class Chat {
  /** `rest`: `sessions`, `picker`, `title` and `announce`. */
  constructor({ connection, outbox, transcript, composer, queue, ...rest }) {
    Object.assign(this, { connection, outbox, transcript, composer, queue, ...rest });
    this.answers = new Map();
    this.conversation = new Conversation(data);
    transcript.adopt(this.conversation);
    const { conversation, picker } = this;
    const draw = () => this.#draw();
    const follow = () => transcript.follow();
    this.sender = new Sender({ connection, outbox, composer, picker, conversation, draw, follow });
    // A frame that was asked for does not come any more where the page is hidden meanwhile.
    document.addEventListener("visibilitychange", () => this.#draw(true));
    connection.addEventListener("state", () => this.#follow());
    connection.addEventListener("frame", (event) => this.#receive(event.detail));
    composer.addEventListener("submit", (event) => this.#submitTyped(event.detail));
    composer.addEventListener("stop", () => this.stop());
    queue.addEventListener("change", (event) => {
      if (!this.#changeQueue(event.detail)) event.preventDefault();
    });
    composer.addEventListener("edit", () => this.editLast());
    this.#draw();
  }

  get #isOpen() {
    return this.connection.state === "open";
  }

  // Out

  #submitTyped({ text, isUrgent, edited }) {
    const run_id = edited && this.#waitingRunOf(edited);
    if (run_id) {
      const isSent = this.#changeQueue({ content: text, metadata: { op: "edit", run_id } });
      return isSent || this.composer.beginEdit(text, edited);
    }
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
    if (!(await this.later.loadAll())) return this.composer.keep(content, words.manage.failed);
    await this.sender.submit(content, options);
  }

  /** Stop the reply that is written, or about to be. */
  stop(message = this.conversation.active) {
    if (!message) return;
    const { run_id, message_id } = message;
    if (run_id) {
      this.conversation.cancelling.add(run_id);
      this.#cancel(run_id);
    } else {
      this.sender.takeBack(message_id.replace("reply:", ""));
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

  /** Whether that could be asked for now; where it could not, that is told. */
  #changeQueue({ content, metadata }) {
    const { sessionId: session_id } = this.conversation;
    const isSent = this.connection.send({ type: "queue", session_id, content, metadata });
    if (!isSent) this.composer.setHint(words.manage.failed, true);
    return isSent;
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

  // The connection

  #follow() {
    this.sender.pause();
    if (this.#isOpen) {
      this.sender.begin();
      this.#resume();
      this.sender.flush();
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
      case "retry":
        return this.connection.retry();
      case "missing":
        return this.composer.setHint(words.missing, true);
      default:
        return this.composer.setHint(effect.text, true);
    }
  }

  #accepted({ client_message_id, session_id }) {
    const isFirst = this.sender.settle(client_message_id, session_id);
    if (session_id === this.conversation.sessionId) this.#settleIn(session_id);
    if (isFirst) this.sender.flush();
  }

  /** The conversation has an address now, and is followed like any other. */
  #settleIn(session_id) {
    const isNew = location.pathname !== addressOf(session_id);
    if (!this.conversation.isAside) this.#tellBranch();
    if (!isNew) return;
    this.draft.store();
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
      this.sender.refuse(entry, text);
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
    this.title.tellReply();
    const completed = fill(words.announce.completed, { agent: agentOf(message) });
    this.announce(endingOf(message) || completed);
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
    this.sender.showUnsent();
    this.#resume();
    this.#draw();
  }

  #list(frame) {
    this.sessions.apply(frame);
    const { title } = frame.metadata;
    if (frame.session_id !== this.conversation.sessionId || !title) return;
    this.title.rename(title);
  }

  // What is shown

  /** Once a frame is enough; a hidden page has no frames. */
  #draw(isAnew = false) {
    if (this.isDrawing && !isAnew) return;
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

function toolWords({ event, name }) {
  return fill(words.steps[event.slice("tool.".length)], { name: name.replaceAll("_", " ") });
}
