/** Approval requests: a card for each tool call, with its buttons or the decision. */

import { all, byId, fromTemplate, setText, within } from "../page/elements.js";
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
    this.#find("actions").hidden = Boolean(part.decision);
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
  const card = /** @type {HTMLElement} */ (button.closest(".approval"));
  const reason = within(card, "input.approval-why").value.trim();
  const decision = button.dataset.answer === "approve" ? "approve" : "reject";
  const answer = { request_id: card.dataset.requestId ?? "", decision };
  return decision === "reject" && reason
    ? { ...answer, decision, message: reason }
    : { ...answer, decision };
}

/** Answers that this page has given and that the server has not confirmed yet. */
export class Approvals {
  /** @type {Map<string, { session_id: string, metadata: Answer }>} */
  #answers = new Map();
  #newest = "";

  /** @param {{ connection: Connection, conversation: Conversation }} page */
  constructor({ connection, conversation }) {
    this.connection = connection;
    this.conversation = conversation;
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
  }

  /**
   * Move the focus to the card of a new request.
   * @param {string} request_id
   */
  bring(request_id) {
    this.#newest = request_id;
  }

  /** Disable the buttons of cards whose answer is on its way. */
  show() {
    const { active } = this.conversation;
    const reply = active?.run_status === "awaiting_input" && byId(`m-${active.message_id}`);
    for (const card of reply ? all(reply, '.approval[data-decision=""]') : []) {
      const isSent = this.#answers.has(card.dataset.requestId ?? "");
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
 * Focus the card, not a button of it; never while the user types or has a menu open, and without
 * scrolling: at the end of the log the card is in sight anyway.
 * @param {string} request_id
 */
function focusCard(request_id) {
  const focused = document.activeElement;
  if (focused && "value" in focused && focused.value) return;
  if (document.querySelector(":popover-open:not(.toast), dialog[open]")) return;
  within(document.body, `.approval[data-request-id="${request_id}"]`)?.focus({
    preventScroll: true,
  });
}
