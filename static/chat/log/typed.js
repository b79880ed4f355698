/**
 * Keeps what is typed into the log, comments on replies and reasons of rejections, while another
 * conversation is shown.
 */

import { all, fieldOf } from "../page/elements.js";
import { openForm } from "./feedback.js";

/** @type {Map<string, { value: Verdict, comment: string }>} */
const comments = new Map();
/** @type {Map<string, string>} */
const reasons = new Map();
const FORMS = "form.feedback";
const OPEN_CARDS = '.approval[data-decision=""]';

/** Before the log is replaced: keep what stands in its fields. */
export function keepTyped() {
  for (const form of /** @type {HTMLFormElement[]} */ (all(document, FORMS))) {
    const { about = "", value } = form.dataset;
    const comment = fieldOf(form, "comment").value;
    if (comment) comments.set(about, { value: /** @type {Verdict} */ (value), comment });
  }
  for (const card of all(document, OPEN_CARDS)) {
    const { value = "" } = reasonOf(card) ?? {};
    if (value) reasons.set(card.dataset.requestId ?? "", value);
  }
}

/** Put back what was kept of the messages that are shown now. */
export function showTyped() {
  for (const [id, { value, comment }] of comments) {
    const article = document.getElementById(`m-${id}`);
    if (!article) continue;
    openForm(article, id, value).value = comment;
    comments.delete(id);
  }
  for (const card of all(document, OPEN_CARDS)) {
    const { requestId = "" } = card.dataset;
    const field = reasonOf(card);
    if (field) field.value = reasons.get(requestId) ?? "";
    reasons.delete(requestId);
  }
}

/**
 * @param {HTMLElement} card
 * @returns {HTMLInputElement | null}
 */
function reasonOf(card) {
  return card.querySelector("input.approval-why");
}
