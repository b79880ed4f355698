/**
 * Applies the frames of a session's runs to its messages, in the order of their numbers.
 *
 * Each method returns the effects that `Conversation.apply` passes on.
 */

import { isActive } from "./branch.js";
import * as parts from "./parts.js";
import { RunCursor } from "./run_cursor.js";

export class RunJournal {
  #isResuming = false;

  /**
   * Runs that were asked to stop and have not ended.
   * @type {Set<string>}
   */
  cancelling = new Set();

  /**
   * @param {StoredMessages} stored
   * @param {PageData} data
   */
  constructor(stored, { run, parts: shown }) {
    this.stored = stored;
    this.cursor = new RunCursor(run);
    this.#showParts(run, shown);
  }

  /**
   * Continue from the run that a rendered page shows.
   * @param {PageData} data
   */
  restartAt({ run, parts: shown }) {
    this.cursor.run = run;
    this.#showParts(run, shown);
  }

  /**
   * @param {Run | null} run
   * @param {Part[]} shown
   */
  #showParts(run, shown) {
    if (run && this.stored.get(run.message_id))
      this.stored.change(run.message_id, { parts: shown });
  }

  // Resuming

  /** The metadata of `resume`: the cursor of this page. */
  beginResume() {
    this.#isResuming = true;
    return { rev: this.stored.rev, ...this.cursor.position };
  }

  /**
   * @param {boolean} recovered
   * @returns {Effect[]}
   */
  endResume(recovered) {
    this.#isResuming = false;
    return recovered ? [] : [{ kind: "reload" }];
  }

  /**
   * Handle an error that answers no message, such as one that answers `resume`.
   * @param {ErrorFrame} frame
   * @returns {Effect[]}
   */
  refuse({ content, metadata: { code, retryable } }) {
    const wasResuming = this.#isResuming;
    this.#isResuming = false;
    if (wasResuming && retryable) return [{ kind: "retry" }];
    const isMissing = wasResuming && code === "not_found";
    return [isMissing ? { kind: "missing" } : { kind: "notice", text: content }];
  }

  /** @returns {Effect[]} */
  #repair() {
    return this.#isResuming ? [] : [{ kind: this.cursor.repair() }];
  }

  // Frames

  /**
   * Whether a frame belongs to a reply on a branch that has not been loaded.
   * @param {ServerFrame} frame
   */
  isElsewhere({ metadata: at }) {
    const isRuns = "seq" in at && at.seq !== undefined && "message_id" in at && at.message_id;
    return Boolean(isRuns && this.stored.branch.chosen && !this.stored.get(isRuns));
  }

  /**
   * Move the cursor over a frame without showing it.
   * @param {ServerFrame} frame
   * @returns {Effect[]}
   */
  skip({ type, metadata }) {
    const at = /** @type {At} */ (metadata);
    if (type === "complete" || type === "error") this.cursor.end(at.run_id);
    else if (this.cursor.placeOf(at) !== "old") this.cursor.moveTo(at);
    return [];
  }

  /**
   * @param {TokenFrame} frame
   * @returns {Effect[]}
   */
  addToken({ content, metadata }) {
    return this.#advance(metadata, (shown) => parts.addText(shown, content));
  }

  /**
   * @param {StatusMetadata} at
   * @returns {Effect[]}
   */
  applyStatus(at) {
    switch (at.event) {
      case "resumed":
        return this.endResume(at.recovered);
      case "snapshot":
        return this.#applySnapshot(at);
      case "run.reset":
        this.#restart(at);
        return [];
      case "run.cancelling":
        this.cancelling.add(at.run_id);
        return [];
      case "run.head":
        return this.#compare(at.run_id);
      case "run.started":
        return this.#start(at);
      case "run.retrying":
        return this.#retry(at);
      case "reasoning.delta":
        return this.#advance(at, (shown) => parts.addReasoning(shown, at.delta));
      case "tool.started":
      case "tool.progress":
      case "tool.finished":
      case "tool.failed":
        return this.#applyTool(at);
      case "input.requested":
        return this.#request(at);
      case "input.resolved":
        return this.#advance(at, (shown) => parts.resolveRequest(shown, at));
      case "responded":
        return [{ kind: "answered", request_id: at.request_id, duplicate: at.duplicate }];
      case "agent.changed":
        return this.#advance(at, (shown) => parts.addAgent(shown, at.name), { agent: at.name });
      default:
        return this.#applyUnknown(at);
    }
  }

  /**
   * A newer server may send unknown events of a run: they count in `seq` but are not shown.
   * @param {{ event: string }} at
   * @returns {Effect[]}
   */
  #applyUnknown(at) {
    return "seq" in at
      ? this.#advance(/** @type {At} */ (/** @type {unknown} */ (at)), () => {})
      : [];
  }

  /**
   * Apply the next frame of a run: `grow` changes the parts of its reply, `fields` its message.
   * @param {At} at
   * @param {(shown: Part[]) => void} grow
   * @param {Partial<Message>} fields
   * @returns {Effect[]}
   */
  #advance(at, grow, fields = {}) {
    const place = this.cursor.placeOf(at);
    if (place === "old") return [];
    if (place === "gap") return this.#repair();
    this.#restart(at);
    this.cursor.moveTo(at);
    const { parts: shown, ...message } = this.#replyOf(at);
    if (!isActive(message)) return [];
    grow(shown);
    const run_status = parts.hasOpenRequest(shown) ? "awaiting_input" : "running";
    this.stored.change(at.message_id, { ...fields, run_status, state: "" });
    const { branch } = this.stored;
    return branch.chosen || branch.isConnected(message) ? [] : [{ kind: "reload" }];
  }

  /**
   * The message that a frame extends; it is added if it has not arrived yet.
   * @param {{ message_id: string, run_id: string }} at
   * @returns {Message & { parts: Part[] }}
   */
  #replyOf({ message_id, run_id }) {
    const held = this.stored.get(message_id);
    const reply = held ?? this.stored.addReply(message_id, this.stored.lastId, run_id);
    if (reply.parts) return { ...reply, parts: reply.parts };
    const shown = /** @type {Part[]} */ ([]);
    return { ...this.stored.change(message_id, { parts: shown }), parts: shown };
  }

  /**
   * @param {Metadata<"run.started">} at
   * @returns {Effect[]}
   */
  #start(at) {
    const isNew = this.cursor.placeOf(at) === "next";
    const effects = this.#advance(at, () => {}, { agent: at.agent, run_id: at.run_id });
    return isNew ? [...effects, { kind: "started", message: this.#replyOf(at) }] : effects;
  }

  /**
   * @param {Metadata<"run.retrying">} at
   * @returns {Effect[]}
   */
  #retry(at) {
    const isNext = this.cursor.placeOf(at) === "next";
    const effects = this.#advance(at, () => {});
    if (isNext) this.stored.change(at.message_id, { state: "retrying", wait_s: at.wait_s });
    return effects;
  }

  /**
   * @param {ToolMetadata} at
   * @returns {Effect[]}
   */
  #applyTool(at) {
    const isNew = this.cursor.placeOf(at) === "next";
    const effects = this.#advance(at, (shown) => parts.applyTool(shown, at));
    const isTold = at.event === "tool.started" || at.event === "tool.failed";
    return isNew && isTold
      ? [...effects, { kind: "tool", event: at.event, name: at.name }]
      : effects;
  }

  /**
   * @param {Metadata<"input.requested">} at
   * @returns {Effect[]}
   */
  #request(at) {
    const isNew = this.cursor.placeOf(at) === "next";
    const effects = this.#advance(at, (shown) => parts.addRequest(shown, at));
    if (!isNew) return effects;
    return [...effects, { kind: "asked", message: this.#replyOf(at), request_id: at.request_id }];
  }

  /**
   * Empty the reply if the frame is of a later epoch.
   * @param {{ run_id: string, epoch: number }} at
   */
  #restart(at) {
    const message_id = this.cursor.run?.message_id;
    const isNews = this.cursor.restart(at);
    if (isNews && message_id && this.stored.get(message_id)) {
      this.stored.startOver(message_id, [], { state: "restarting" });
    }
  }

  /**
   * @param {Metadata<"snapshot">} at
   * @returns {Effect[]}
   */
  #applySnapshot(at) {
    if (this.cursor.isBehind(at)) return [];
    this.cursor.moveTo(at);
    const message = this.#replyOf(at);
    if (!isActive(message)) return [];
    const fields = { run_status: at.run_status, state: "" };
    if (parts.continues(message.parts, at.parts)) {
      this.stored.change(at.message_id, { ...fields, parts: at.parts });
    } else {
      this.stored.startOver(at.message_id, at.parts, fields);
    }
    return [];
  }

  /**
   * A terminal frame is complete in itself, so it is applied even after a gap. A queued run may end
   * before the run that it waits for.
   * @param {EndFrame} frame
   * @returns {Effect[]}
   */
  end(frame) {
    const at = /** @type {At} */ (frame.metadata);
    if (this.cursor.hasEnded(at.run_id)) return [];
    this.cursor.end(at.run_id);
    this.cancelling.delete(at.run_id);
    if (this.stored.isWithdrawn(at.message_id)) return [];
    const { parts: shown } = this.#replyOf(at);
    parts.closeTools(shown);
    const fields = { ...endOf(frame, shown), run_id: at.run_id, state: "" };
    return [{ kind: "ended", message: this.stored.change(at.message_id, fields) }];
  }

  /**
   * `run.head` answers a cancel that came after the end; fill the gap if that end has not been
   * shown.
   * @param {string} run_id
   */
  #compare(run_id) {
    const message = this.stored.branch.find((held) => held.run_id === run_id);
    return isActive(message) ? this.#repair() : [];
  }
}

/**
 * The fields of a message after its terminal frame; `shown` are its parts.
 * @param {EndFrame} frame
 * @param {Part[]} shown
 * @returns {Partial<Message>}
 */
function endOf(frame, shown) {
  if (frame.type === "error") {
    const { code, usage } = frame.metadata;
    return { run_status: "failed", error_code: code, error_text: frame.content, usage };
  }
  const { finish_reason: run_status, reason, html, usage } = frame.metadata;
  return { run_status, reason, html, usage, parts: parts.settleText(shown, frame.content) };
}
