/** Thumbs under a finished reply, and a few words to go with them. */

import { apiOf, ask } from "./api.js";
import { fromTemplate, isComposing } from "./elements.js";
import { data, words } from "./words.js";

const verdicts = new Map(Object.entries(data.feedback));

/** Show on a reply what its reader thinks of it. */
export function showVerdict(article) {
  const given = verdicts.get(article.dataset.messageId);
  for (const button of article.querySelectorAll("[data-verdict]")) {
    button.ariaPressed = String(button.dataset.verdict === given);
  }
}

export class Feedback {
  /** How many live changes of a message are still to come that only repeat what this tab did. */
  #echoes = new Map();

  constructor({ getCurrent, toast, announce }) {
    Object.assign(this, { getCurrent, toast, announce });
    document.addEventListener("click", (event) => this.#press(event));
    document.addEventListener("submit", (event) => this.#send(event));
    document.addEventListener("keydown", (event) => this.#escape(event));
  }

  /** A thumb that is pressed already is taken back. */
  async #press(event) {
    const button = event.target.closest("[data-verdict]");
    if (!button) return;
    const article = button.closest(".message");
    const { messageId } = article.dataset;
    const isTakenBack = button.ariaPressed === "true";
    const value = isTakenBack ? undefined : button.dataset.verdict;
    if (!(await this.#tell(messageId, value))) return;
    closeForm(article);
    if (!isTakenBack) openForm(article, messageId, value);
    this.announce(isTakenBack ? words.feedback.taken_back : words.feedback.given);
  }

  async #send(event) {
    const form = event.target.closest(".feedback");
    if (!form) return;
    event.preventDefault();
    const { about, value } = form.dataset;
    const comment = form.elements.comment.value.trim();
    if (comment && !(await this.#tell(about, value, comment))) return;
    leaveForm(form.closest(".message"));
    this.announce(words.feedback.thanks);
  }

  #escape(event) {
    const form = event.target.closest?.(".feedback");
    if (!form || event.key !== "Escape" || isComposing(event)) return;
    event.stopPropagation();
    leaveForm(form.closest(".message"));
  }

  /** Show what was given or taken back in any tab; an echo of this one may be out of date. */
  follow({ message_id, value }) {
    if (this.#echoes.get(message_id)) this.#expectEchoes(message_id, -1);
    else this.#apply({ message_id, value });
  }

  #expectEchoes(message_id, more) {
    this.#echoes.set(message_id, (this.#echoes.get(message_id) ?? 0) + more);
  }

  #apply({ message_id, value }) {
    const article = document.getElementById(`m-${message_id}`);
    verdicts.set(message_id, value);
    if (!article) return;
    showVerdict(article);
    if (!value) closeForm(article);
  }

  /** Show these verdicts and no others. */
  renew(given) {
    verdicts.clear();
    this.#echoes.clear();
    for (const { message_id, value } of given) verdicts.set(message_id, value);
    for (const article of document.querySelectorAll(".assistant")) showVerdict(article);
  }

  /** Keep a verdict, or none, and show it; whether that worked. */
  async #tell(message_id, value, comment = "") {
    const address = apiOf(this.getCurrent(), `messages/${message_id}/feedback/`);
    this.#expectEchoes(message_id, 1);
    try {
      const body = { value, comment };
      await ask(address, value ? { method: "PUT", body } : { method: "DELETE" });
    } catch {
      this.#expectEchoes(message_id, -1);
      this.toast.show(words.manage.failed);
      return false;
    }
    this.#apply({ message_id, value });
    return true;
  }
}

/** Another reply may take the place of the one that it is about. */
function openForm(article, about, value) {
  const form = fromTemplate("feedback-template");
  Object.assign(form.dataset, { about, value });
  const { comment } = form.elements;
  comment.placeholder = words.feedback[value];
  comment.ariaLabel = words.feedback[value];
  form.querySelector(".feedback-close").addEventListener("click", () => leaveForm(article));
  article.querySelector(".actions").after(form);
  form.scrollIntoView({ block: "nearest" });
}

function closeForm(article) {
  article.querySelector(".feedback")?.remove();
}

/** The keyboard goes back to the thumb. */
function leaveForm(article) {
  closeForm(article);
  article.querySelector("[data-verdict][aria-pressed='true']")?.focus();
}
