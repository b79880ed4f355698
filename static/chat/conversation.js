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

import { Branch } from "./branch.js";
import * as parts from "./parts.js";
import { Pending } from "./pending.js";
import { RunCursor } from "./run_cursor.js";

const ACTIVE = new Set(["queued", "running", "awaiting_input"]);

export class Conversation {
  constructor(data) {
    this.sessionId = data.session_id;
    this.load(data);
  }

  /** Begin from a rendered page: `{rev, run, parts, queue, messages, siblings, branch}`. */
  load({ rev, run, parts: shown, queue, messages, siblings, branch }) {
    this.branch = new Branch(messages, siblings, branch);
    this.rev = rev;
    this.lastRev = rev;
    this.cursor = new RunCursor(run);
    this.withdrawn = new Set();
    this.queue = queue;
    this.pending = new Pending();
    this.cancelling = new Set();
    this.unwanted = new Set();
    this.isResuming = false;
    this.#showRun(run, shown);
  }

  #showRun(run, shown) {
    if (run && this.branch.get(run.message_id)) this.#change(run.message_id, { parts: shown });
  }

  /** Messages from before the first one, as the server has rendered them. */
  addEarlier({ messages, siblings }) {
    this.branch.addEarlier(messages, siblings);
  }

  /** The same from behind the last one; where they come to the end, go on from there. */
  addLater({ messages, siblings, rev, run, parts: shown, branch }, isEnd) {
    this.branch.addLater(messages, siblings);
    if (!isEnd) return;
    this.rev = this.lastRev = rev;
    this.cursor.run = run;
    this.#showRun(run, shown);
    if (!branch) this.branch.unchoose();
  }

  /** Whether something else is shown than the branch that the conversation goes on. */
  get isAside() {
    return Boolean(this.branch.chosen);
  }

  /** What is sent now goes on from here; undefined: from wherever the conversation is. */
  get parentOfNext() {
    return this.isAside && !this.pending.size ? this.branch.last.message_id : undefined;
  }

  /** The messages that are shown, oldest first; what is not stored yet comes last. */
  get messages() {
    return this.pending.follow(this.branch.path);
  }

  /** The message of that id, stored or not. */
  get(id) {
    return this.branch.get(id) ?? this.messages.find((message) => message.message_id === id);
  }

  /** The reply that is worked on or about to be. */
  get active() {
    return this.messages.find((message) => ACTIVE.has(message.run_status));
  }

  get isBusy() {
    return this.active !== undefined;
  }

  /** Whether the reply was asked to stop, also before it had a run. */
  isStopping({ run_id, message_id }) {
    return this.cancelling.has(run_id) || this.unwanted.has(message_id);
  }

  /** How many messages wait behind the active reply; 0 for that reply itself. */
  positionOf(message) {
    return 1 + this.queue.findIndex((entry) => entry.run_id === message.run_id);
  }

  /** The metadata of `resume`: what is shown already. */
  beginResume() {
    this.isResuming = true;
    return { rev: this.rev, ...this.cursor.position };
  }

  apply(frame) {
    if (this.#isElsewhere(frame)) return this.#pass(frame);
    if (frame.type === "status") return this.#applyStatus(frame);
    if (frame.type === "error" && !frame.metadata.terminal) return this.#refuse(frame);
    if (frame.session_id !== this.sessionId) return [];
    if (frame.type === "token") {
      return this.#advance(frame, (shown) => parts.addText(shown, frame.content));
    }
    if (frame.type === "complete" || frame.type === "error") return this.#end(frame);
    return [];
  }

  /** Of a reply on a branch that has not been loaded. */
  #isElsewhere({ session_id, metadata: at }) {
    const isRuns = session_id === this.sessionId && at.seq !== undefined && at.message_id;
    return isRuns && this.isAside && !this.branch.get(at.message_id);
  }

  /** Nothing of it is shown: it only counts where it is. */
  #pass({ type, metadata: at }) {
    const hasEnded = type === "complete" || type === "error";
    if (hasEnded) this.cursor.end(at.run_id);
    else if (this.cursor.placeOf(at) !== "old") this.cursor.moveTo(at);
    return [];
  }

  #applyStatus(frame) {
    const at = frame.metadata;
    if (at.event === "accepted") return this.#accept(frame);
    if (frame.session_id !== this.sessionId) return [];
    switch (at.event) {
      case "resumed":
        return this.#resumed(at);
      case "message.created":
      case "message.updated":
        return this.#hold(at);
      case "queue.changed":
        this.#see(at.rev);
        this.queue = at.queue;
        return [];
      case "snapshot":
        return this.#replace(at);
      case "run.reset":
        return this.#reset(at);
      case "run.cancelling":
        this.cancelling.add(at.run_id);
        return [];
      case "run.head":
        return this.#compare(at);
      case "run.started":
        return this.#start(frame);
      case "reasoning.delta":
        return this.#advance(frame, (shown) => parts.addReasoning(shown, at.delta));
      case "input.requested":
        return this.#ask(frame);
      case "input.resolved":
        return this.#advance(frame, (shown) => parts.resolveRequest(shown, at));
      case "responded":
        return [{ kind: "answered", request_id: at.request_id, duplicate: at.duplicate }];
      case "agent.changed":
        return this.#advance(frame, (shown) => parts.addAgent(shown, at.name), { agent: at.name });
      case "run.retrying":
        return this.#retry(frame);
      default:
        return this.#other(frame);
    }
  }

  /** Tools, and what a newer server may tell of a run. */
  #other(frame) {
    const at = frame.metadata;
    if (at.seq === undefined) return [];
    return at.event.startsWith("tool.") ? this.#use(frame) : this.#advance(frame, () => {});
  }

  #retry(frame) {
    const { message_id, wait_s } = frame.metadata;
    const isNext = this.cursor.placeOf(frame.metadata) === "next";
    const needs = this.#advance(frame, () => {});
    if (isNext) this.#change(message_id, { state: "retrying", wait_s });
    return needs;
  }

  // Messages

  /** Frames of one revision may be cut apart: it is complete only when a later one comes. */
  #see(rev) {
    if (rev <= this.lastRev) return;
    this.rev = this.lastRev;
    this.lastRev = rev;
  }

  #hold(message) {
    this.#see(message.rev);
    if (this.pending.delete(message.client_message_id)) this.branch.unchoose();
    if (message.withdrawn) return this.#drop(message);
    const held = this.branch.get(message.message_id);
    const isTold = message.role === "assistant" && !message.parts;
    if (!isTold && !ACTIVE.has(message.run_status)) {
      this.#change(message.message_id, { ...message, state: "" });
    } else if (!held || ACTIVE.has(held.run_status)) {
      this.#follow(message, isTold);
    } else if (message.summary !== undefined) {
      this.#change(message.message_id, { summary: message.summary });
    }
    return [];
  }

  /** It was taken back while it waited; its run still has an end. */
  #drop({ message_id }) {
    this.withdrawn.add(message_id);
    this.branch.delete(message_id);
    return [];
  }

  /** The frames of its run say what is shown of a reply; where it has no parts, its end too. */
  #follow(message, isTold) {
    const held = this.branch.get(message.message_id);
    const run_status = isTold ? (held?.run_status ?? "running") : message.run_status;
    const shown = held?.parts ?? [];
    const agent = parts.agentOf(shown) ?? message.agent;
    const fields = { ...message, run_status, agent, parts: shown, state: "" };
    this.#change(message.message_id, fields);
  }

  #change(id, fields) {
    const held = this.branch.get(id);
    const message = { ...held, ...fields, message_id: id, version: (held?.version ?? 0) + 1 };
    this.branch.set(message);
    return message;
  }

  #resumed({ recovered }) {
    this.isResuming = false;
    return recovered ? [] : [{ kind: "reload" }];
  }

  // What was typed here and is not stored yet

  /**
   * Show an unsent entry of the outbox: `{client_message_id, content, agent, refused}`, with
   * `regenerate` or `parent_message_id` where it takes the place of what follows that message.
   */
  addPending(entry) {
    const { client_message_id, regenerate, refused } = entry;
    this.pending.add(entry, this.branch.get(regenerate)?.parent_message_id);
    if (refused) this.pending.refuse(client_message_id, refused);
  }

  /** Take an unsent entry away again. */
  forget(client_message_id) {
    this.pending.delete(client_message_id);
  }

  #accept({ session_id, metadata: at }) {
    const { client_message_id, run_id } = at;
    const isMine = this.pending.has(client_message_id);
    if (isMine) this.sessionId ||= session_id;
    if (isMine && session_id === this.sessionId) this.#expect(at);
    const accepted = { kind: "accepted", client_message_id, session_id };
    if (!this.unwanted.delete(`reply:${client_message_id}`)) return [accepted];
    this.cancelling.add(run_id);
    return [accepted, { kind: "cancel", run_id }];
  }

  /** Show the stored messages until they come themselves. */
  #expect({ client_message_id, user_message_id, message_id, run_id }) {
    const prompt = this.pending.promptOf(client_message_id);
    const last = this.branch.last?.message_id ?? null;
    this.pending.delete(client_message_id);
    this.branch.unchoose();
    if (prompt && !this.branch.get(user_message_id)) {
      const { parent_message_id = last } = prompt;
      this.#add(user_message_id, { ...prompt, parent_message_id, state: "" });
    }
    if (!this.branch.get(message_id)) this.#addReply(message_id, user_message_id, run_id);
  }

  #addReply(message_id, parent_message_id, run_id) {
    const fields = { role: "assistant", parent_message_id, run_id, run_status: "queued" };
    return this.#add(message_id, { ...fields, parts: [] });
  }

  /** A message that the server has not told of, behind all others. */
  #add(id, fields) {
    return this.#change(id, { ...fields, number: this.branch.nextNumber });
  }

  #refuse({ content, metadata: { client_message_id, code, retryable } }) {
    if (client_message_id) {
      this.pending.refuse(client_message_id, content);
      return [{ kind: "refused", client_message_id, text: content }];
    }
    const wasResuming = this.isResuming;
    this.isResuming = false;
    if (wasResuming && retryable) return [{ kind: "retry" }];
    const isMissing = wasResuming && code === "not_found";
    return [isMissing ? { kind: "missing" } : { kind: "notice", text: content }];
  }

  // Runs

  #advance({ metadata: at }, grow, fields = {}) {
    const place = this.cursor.placeOf(at);
    if (place === "old") return [];
    if (place === "gap") return this.#repair();
    this.#reset(at);
    this.cursor.moveTo(at);
    const message = this.#reply(at);
    if (!ACTIVE.has(message.run_status)) return [];
    grow(message.parts);
    const run_status = parts.hasOpenRequest(message.parts) ? "awaiting_input" : "running";
    this.#change(at.message_id, { ...fields, run_status, state: "" });
    return this.isAside || this.branch.isConnected(message) ? [] : [{ kind: "reload" }];
  }

  /** The message that a frame grows, made up if it has not come yet. */
  #reply({ message_id, run_id }) {
    const held = this.branch.get(message_id);
    if (held) return held.parts ? held : this.#change(message_id, { parts: [] });
    return this.#addReply(message_id, this.branch.last?.message_id ?? null, run_id);
  }

  #repair() {
    return this.isResuming ? [] : [{ kind: this.cursor.repair() }];
  }

  #start(frame) {
    const at = frame.metadata;
    const isNew = this.cursor.placeOf(at) === "next";
    const needs = this.#advance(frame, () => {}, { agent: at.agent, run_id: at.run_id });
    if (!isNew) return needs;
    return [...needs, { kind: "started", message: this.branch.get(at.message_id) }];
  }

  #use(frame) {
    const at = frame.metadata;
    const isNew = this.cursor.placeOf(at) === "next";
    const needs = this.#advance(frame, (shown) => parts.applyTool(shown, toolOf(at)));
    const isTold = at.event === "tool.started" || at.event === "tool.failed";
    return isNew && isTold ? [...needs, { kind: "tool", event: at.event, name: at.name }] : needs;
  }

  #ask(frame) {
    const at = frame.metadata;
    const isNew = this.cursor.placeOf(at) === "next";
    const needs = this.#advance(frame, (shown) => parts.addRequest(shown, at));
    if (!isNew) return needs;
    const message = this.branch.get(at.message_id);
    return [...needs, { kind: "asked", message, request_id: at.request_id }];
  }

  #reset(at) {
    const message_id = this.cursor.run?.message_id;
    const isNews = this.cursor.restart(at);
    if (isNews && this.branch.get(message_id)) {
      this.#startOver(message_id, [], { state: "restarting" });
    }
    return [];
  }

  #replace(at) {
    if (this.cursor.isBehind(at)) return [];
    this.cursor.moveTo(at);
    const message = this.#reply(at);
    if (!ACTIVE.has(message.run_status)) return [];
    const fields = { run_status: at.run_status, state: "" };
    if (parts.continues(message.parts, at.parts)) {
      this.#change(at.message_id, { ...fields, parts: at.parts });
    } else {
      this.#startOver(at.message_id, at.parts, fields);
    }
    return [];
  }

  /** Show other parts, not what was shown and more. */
  #startOver(id, shown, fields) {
    const generation = (this.branch.get(id).generation ?? 0) + 1;
    this.#change(id, { ...fields, parts: shown, generation });
  }

  /**
   * A terminal frame is whole in itself: it counts after a gap too. What waits in line may end
   * before what it waits for.
   */
  #end({ type, content, metadata: at }) {
    if (this.cursor.hasEnded(at.run_id)) return [];
    this.cursor.end(at.run_id);
    this.cancelling.delete(at.run_id);
    if (this.withdrawn.has(at.message_id)) return [];
    const shown = this.#reply(at).parts;
    parts.closeTools(shown);
    const fields =
      type === "error"
        ? { run_status: "failed", error_code: at.code, error_text: content, usage: at.usage }
        : {
            run_status: at.finish_reason,
            reason: at.reason,
            html: at.html,
            usage: at.usage,
            parts: parts.settleText(shown, content),
          };
    const message = this.#change(at.message_id, { ...fields, run_id: at.run_id, state: "" });
    return [{ kind: "ended", message }];
  }

  /** `run.head` answers a cancel that came after the end: has that end been shown? */
  #compare({ run_id }) {
    const message = this.branch.find((held) => held.run_id === run_id);
    return message && ACTIVE.has(message.run_status) ? this.#repair() : [];
  }
}

function toolOf({ event, tool_call_id, name, arguments: given, ...at }) {
  const { progress, fraction, output, summary, duration_ms } = at;
  const fields = { arguments: given, progress, fraction, output, summary, duration_ms };
  const known = Object.entries(fields).filter(([, value]) => value !== undefined);
  return { event, tool_call_id, name, ...Object.fromEntries(known) };
}
