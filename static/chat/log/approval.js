/** Approval requests: a card for each tool call, with its buttons or the decision. */

import { all, byId, closest, fromTemplate, setText, within } from "../page/elements.js";
import { isField } from "../page/keys.js";
import { describeDecision, nameOfTool } from "../page/labels.js";
import { fill, language, words } from "../page/words.js";
import { showPairs } from "./pairs.js";

export class ApprovalPart {
  /** @param {HTMLElement} [element] */
  constructor(element) {
    this.element = element ?? fromTemplate("approval-template");
  }

  /** @param {Approval} part */
  grow(part) {
    this.element.dataset.requestId = part.request_id;
    this.element.dataset.decision = part.decision ?? "";
    this.element.toggleAttribute("data-irreversible", Boolean(part.irreversible));
    setText(this.#find("title"), fill(words.approvals.title, { tool: nameOfTool(part.tool) }));
    setText(this.#find("description"), part.description);
    showPairs(this.#find("arguments"), part.arguments);
    setText(this.#find("outcome"), describeDecision(part));
    setText(this.#find("message"), part.message ?? "");
    showTime(within(this.element, "time.approval-time"), part.decided_at);
    const actions = this.#find("actions");
    const hadFocus = part.decision && actions.contains(document.activeElement);
    actions.hidden = Boolean(part.decision);
    if (hadFocus) this.element.focus({ preventScroll: true });
  }

  /** @param {string} name */
  #find(name) {
    return within(this.element, `.approval-${name}`);
  }
}

/**
 * @param {HTMLTimeElement} element
 * @param {string | undefined} decidedAt
 */
function showTime(element, decidedAt) {
  element.hidden = !decidedAt;
  if (!decidedAt) return;
  element.dateTime = decidedAt;
  const date = new Date(decidedAt);
  setText(element, date.toLocaleString(language, { dateStyle: "medium", timeStyle: "short" }));
}

/**
 * The answer that a button of a card stands for.
 * @param {HTMLElement} button
 * @returns {Answer}
 */
export function answerOf(button) {
  const card = cardOf(button);
  const reason = within(card, "input.approval-why").value.trim();
  const decision = button.dataset.answer === "approve" ? "approve" : "reject";
  const answer = { request_id: card.dataset.requestId ?? "", decision };
  return decision === "reject" && reason
    ? { ...answer, decision, message: reason }
    : { ...answer, decision };
}

/** @param {Element} element */
function cardOf(element) {
  return /** @type {HTMLElement} */ (element.closest(".approval"));
}

/**
 * Answers that this page has given and that the server has not confirmed yet, and reasons that are
 * typed for one: those are kept in the browser.
 */
export class Approvals {
  /** @type {Map<string, { session_id: string, metadata: Answer }>} */
  #answers = new Map();
  #newest = "";
  /** Cards that have the reason that was typed before. */
  #shown = /** @type {WeakSet<Element>} */ (new WeakSet());

  /** @param {{ connection: Connection, conversation: Conversation, kept: KeptTexts }} page */
  constructor({ connection, conversation, kept }) {
    this.connection = connection;
    this.conversation = conversation;
    this.kept = kept;
    document.addEventListener("input", (event) => this.#keep(event));
  }

  /** @param {Event} event */
  #keep(event) {
    const field = /** @type {HTMLInputElement | null} */ (closest(event, "input.approval-why"));
    if (field) this.kept.write("reason", cardOf(field).dataset.requestId ?? "", field.value);
  }

  /**
   * Send an answer, now and again on each new connection, until the server has confirmed it.
   * @param {Answer} answer
   */
  answer(answer) {
    const sent = { session_id: this.conversation.sessionId, metadata: answer };
    this.#answers.set(answer.request_id, sent);
    this.#send(sent);
  }

  sendAgain() {
    for (const sent of this.#answers.values()) this.#send(sent);
  }

  /** @param {{ session_id: string, metadata: Answer }} sent */
  #send(sent) {
    this.connection.send({ type: "respond", ...sent });
  }

  /** @param {string} request_id */
  settle(request_id) {
    this.#answers.delete(request_id);
    this.kept.write("reason", request_id, "");
  }

  /**
   * Move the focus to the card of a new request.
   * @param {string} request_id
   */
  bring(request_id) {
    this.#newest = request_id;
  }

  /**
   * @param {HTMLElement} card
   * @param {string} request_id
   */
  #restore(card, request_id) {
    this.#shown.add(card);
    within(card, "input").value ||= this.kept.read("reason", request_id);
  }

  /** Put typed reasons back, and disable the buttons of cards whose answer is on its way. */
  show() {
    const { active } = this.conversation;
    const reply = active?.run_status === "awaiting_input" && byId(`m-${active.message_id}`);
    for (const card of reply ? all(reply, '.approval[data-decision=""]') : []) {
      const { requestId = "" } = card.dataset;
      if (!this.#shown.has(card)) this.#restore(card, requestId);
      const isSent = this.#answers.has(requestId);
      card.toggleAttribute("data-sent", isSent);
      for (const control of card.querySelectorAll("button, input")) {
        control.toggleAttribute("disabled", isSent);
      }
    }
    if (this.#newest) focusCard(this.#newest);
    this.#newest = "";
  }
}

/**
 * Focus the card, not a button of it; never while the user may type or has a menu open, and without
 * scrolling: at the end of the log the card is in sight anyway.
 * @param {string} request_id
 */
function focusCard(request_id) {
  if (isField(document.activeElement)) return;
  if (document.querySelector(":popover-open:not(.toast), dialog[open]")) return;
  within(document.body, `.approval[data-request-id="${request_id}"]`)?.focus({
    preventScroll: true,
  });
}
