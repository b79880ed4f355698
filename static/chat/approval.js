/** A tool call that waits to be approved, or what was decided about it, in a card of its own. */

import { fromTemplate, setText } from "./elements.js";
import { data, fill, words } from "./words.js";

export class ApprovalPart {
  constructor(element) {
    this.element = element ?? fromTemplate("approval-template");
  }

  grow(part) {
    const tool = part.tool.replaceAll("_", " ");
    this.element.dataset.requestId = part.request_id;
    this.element.dataset.decision = part.decision ?? "";
    setText(this.#find("title"), fill(words.approvals.title, { tool }));
    setText(this.#find("description"), part.description);
    setText(this.#find("arguments"), part.arguments);
    setText(this.#find("outcome"), outcomeOf(part));
    setText(this.#find("message"), part.message ?? "");
    tellTime(this.#find("time"), part.decided_at);
    this.#find("actions").hidden = Boolean(part.decision);
  }

  #find(name) {
    return this.element.querySelector(`.approval-${name}`);
  }
}

/** "You approved this", "ben rejected this", "Nobody answered in time". */
function outcomeOf({ decision, by }) {
  if (!decision) return "";
  const isMine = by === data.username;
  return fill(words.approvals[isMine ? `${decision}_you` : decision], { by });
}

function tellTime(element, decidedAt) {
  element.hidden = !decidedAt;
  if (!decidedAt) return;
  element.dateTime = decidedAt;
  const date = new Date(decidedAt);
  setText(element, date.toLocaleString([], { dateStyle: "medium", timeStyle: "short" }));
}

/** What a press of one of a card's buttons says: `{request_id, decision, message}`. */
export function answerOf(button) {
  const card = button.closest(".approval");
  const { value } = card.querySelector(".approval-why");
  const { answer: decision } = button.dataset;
  const answer = { request_id: card.dataset.requestId, decision };
  return decision === "reject" && value.trim() ? { ...answer, message: value.trim() } : answer;
}

/** Nothing of the card can be pressed while the answer is on its way. */
export function markSent(requestIds) {
  for (const card of document.querySelectorAll('.approval[data-decision=""]')) {
    const isSent = requestIds.has(card.dataset.requestId);
    card.toggleAttribute("data-sent", isSent);
    for (const control of card.querySelectorAll("button, input")) control.disabled = isSent;
  }
}

/** Bring the reader to a new card: not to a button, and not while something is being typed. */
export function focusApproval(requestId) {
  if (document.activeElement?.value) return;
  document.querySelector(`.approval[data-request-id="${requestId}"]`)?.focus();
}
