/** One message on the page; a reply keeps its element from "sending" to its end. */

import { finishBlocks } from "./blocks.js";
import { fromTemplate, setText } from "./elements.js";
import { showVerdict } from "./feedback.js";
import { waitingText } from "./model.js";
import { ReplyBody } from "./reply_body.js";
import { showSummary } from "./summary.js";
import { showPlace } from "./switcher.js";
import { data, fill, nameOf, words } from "./words.js";

const SCRIPTED = "tour";
export const WORKING = new Set(["queued", "running", "awaiting_input"]);

export class UserView {
  constructor(element = fromTemplate("user-template")) {
    this.element = element;
  }

  update(message) {
    nameElement(this.element, message);
    this.element.dataset.state = message.state ?? "";
    // Rendered by the server, and it never changes.
    if (message.parts) setText(this.element.querySelector(".body"), message.parts[0]?.text ?? "");
    this.#note(message);
  }

  showPlace(message, siblings) {
    showPlace(this.element, message, siblings);
  }

  #note(message) {
    const note = this.element.querySelector(".note");
    const isRefused = message.state === "refused";
    if (!isRefused) note.replaceChildren();
    else if (!note.childElementCount) note.append(refusal());
    if (isRefused) setText(note.querySelector(".note-text"), message.note);
  }
}

function refusal() {
  return document.getElementById("refused-template").content.cloneNode(true);
}

export class ReplyView {
  constructor(element = fromTemplate("assistant-template"), message = {}) {
    this.element = element;
    if (!message.parts) finishBlocks(element);
    this.messageId = element.dataset.messageId;
    this.body = new ReplyBody(this.#find(".body"), message.parts);
    this.generation = message.generation;
    this.#tellTime(this.#find(".when time").dateTime);
    showVerdict(element);
  }

  #find(selector) {
    return this.element.querySelector(selector);
  }

  /** `state` is what it does now, in words. */
  update(message, state, isWaiting) {
    if (this.messageId !== message.message_id) this.#begin(message);
    const { dataset } = this.element;
    dataset.status = message.run_status;
    setFlag(dataset, "waiting", isWaiting);
    setFlag(dataset, "limited", message.error_code?.startsWith("limit_"));
    setFlag(dataset, "live", message.run_status === "running");
    if (message.agent) this.#nameAgent(message.agent);
    setText(this.#find(".state"), WORKING.has(message.run_status) ? state : "");
    if (message.parts) this.#showParts(message);
    if (message.parts) setText(this.#find(".ending"), endingOf(message));
    this.#tellTime(message.created_at, message.usage);
    showSummary(this.element, message.summary);
  }

  showPlace(message, siblings) {
    showPlace(this.element, message, siblings);
  }

  #begin({ message_id }) {
    const wasPending = this.messageId?.startsWith("reply:");
    if (this.messageId && !wasPending) this.body.clear();
    this.messageId = message_id;
    nameElement(this.element, { message_id });
    showVerdict(this.element);
  }

  #nameAgent(name) {
    setText(this.#find(".who"), agentOf({ agent: name }));
    this.#find(".badge").hidden = name !== SCRIPTED;
  }

  #showParts({ parts, html, run_status, generation }) {
    if (generation !== this.generation) this.body.clear();
    this.generation = generation;
    if (WORKING.has(run_status)) this.body.grow(parts);
    else this.body.finish(parts, html);
  }

  #tellTime(createdAt, usage) {
    if (!createdAt) return;
    const [element, tip] = this.#find(".when").children;
    const date = new Date(createdAt);
    const full = date.toLocaleString();
    const cost = usage?.total_tokens
      ? fill(words.usage, { input: usage.input_tokens, output: usage.output_tokens })
      : "";
    element.dateTime = createdAt;
    if (cost || !tip.textContent) setText(tip, [full, cost].filter(Boolean).join(" · "));
    setText(element, date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  }
}

function nameElement(element, { message_id }) {
  element.dataset.messageId = message_id;
  element.id = `m-${message_id}`;
}

function setFlag(dataset, name, isSet) {
  if (isSet) dataset[name] = "";
  else delete dataset[name];
}

/** Why a reply ended as it did; empty where it is complete. */
export function endingOf({ run_status, reason, error_code, error_text }) {
  if (WORKING.has(run_status)) return "";
  if (run_status === "failed") return error_text ?? words.errors[error_code] ?? words.endings.failed;
  return words.endings[reason] ?? words.endings[run_status] ?? "";
}

/** What a reply that is worked on does now. */
export function stateOf(message, { position, isStopping, isConnected }) {
  const { states } = words;
  if (message.state === "sending") return isConnected ? states.sending : states.offline;
  if (isStopping) return states.stopping;
  if (position > 0) return fill(states.waiting, { position });
  if (message.run_status === "awaiting_input") return states.awaiting;
  if (message.state === "restarting") return states.restarting;
  if (message.state === "retrying") return fill(states.retrying, { seconds: message.wait_s });
  const waiting = waitingText(message);
  if (waiting) return waiting;
  return message.parts?.at(-1)?.type === "text" ? states.writing : states.thinking;
}

/** The name of the agent that replies, as people see it. */
export function agentOf({ agent }) {
  return nameOf(agent || data.agent.label);
}
