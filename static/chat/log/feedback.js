/**
 * Thumbs under a finished reply, and a comment to go with them. What is typed in a form is kept in
 * the browser until it is sent, or the form is closed by the user.
 */

import { apiOf, ask, askAll, describeFailure } from "../page/api.js";
import { all, closest, fieldOf, fromTemplate, within } from "../page/elements.js";
import { data, words } from "../page/words.js";

/** @type {Map<string, Verdict | undefined>} */
const verdicts = new Map(Object.entries(data.feedback));

/**
 * Take over the verdicts of a page that was loaded.
 * @param {PageData} data
 */
export function addVerdicts({ feedback }) {
  for (const [id, verdict] of Object.entries(feedback)) verdicts.set(id, verdict);
}

/**
 * Show the user's verdict on a reply.
 * @param {HTMLElement} article
 */
export function showVerdict(article) {
  const given = verdicts.get(article.dataset.messageId ?? "");
  for (const button of all(article, "[data-verdict]")) {
    button.ariaPressed = String(button.dataset.verdict === given);
  }
}

export class Feedback {
  /**
   * By message: how many `feedback.changed` frames are still to come that only repeat a change of
   * this tab.
   */
  #echoes = /** @type {Map<string, number>} */ (new Map());

  /** Replies whose verdict has changed since all were last asked for. */
  #news = /** @type {Set<string>} */ (new Set());

  /**
   * @param {{ getCurrent: () => string, toast: Toast, announce: Announce, kept: KeptTexts }} at
   */
  constructor({ getCurrent, toast, announce, kept }) {
    this.kept = kept;
    this.getCurrent = getCurrent;
    this.toast = toast;
    this.announce = announce;
    document.addEventListener("click", (event) => this.#press(event));
    document.addEventListener("submit", (event) => this.#send(event));
    document.addEventListener("input", (event) => this.#keep(event));
  }

  /** @param {Event} event */
  #keep(event) {
    const form = /** @type {HTMLFormElement | null} */ (closest(event, "form.feedback"));
    if (form) this.kept.write("comment", form.dataset.about ?? "", fieldOf(form, "comment").value);
  }

  /**
   * Show the comment again that was typed under a reply.
   * @param {HTMLElement} article
   */
  restore(article) {
    const { messageId = "" } = article.dataset;
    const given = verdicts.get(messageId);
    const text = given && this.kept.read("comment", messageId);
    if (text) openForm(article, messageId, given, text);
  }

  /**
   * Give a verdict, or take it back if that thumb is pressed already.
   * @param {Event} event
   */
  async #press(event) {
    const close = closest(event, ".feedback-close");
    if (close) this.#leave(/** @type {HTMLElement} */ (close.closest(".feedback")));
    const button = closest(event, "[data-verdict]");
    if (!button) return;
    const article = messageOf(button);
    const { messageId = "" } = article.dataset;
    const isTakenBack = button.ariaPressed === "true";
    const given = /** @type {Verdict} */ (button.dataset.verdict);
    if (!(await this.#tell(messageId, isTakenBack ? undefined : given))) return;
    closeForm(article);
    if (!isTakenBack) this.#open(article, messageId, given);
    this.announce(isTakenBack ? words.feedback.taken_back : words.feedback.given);
  }

  /**
   * @param {HTMLElement} article
   * @param {string} about
   * @param {Verdict} value
   */
  #open(article, about, value) {
    const form = openForm(article, about, value, this.kept.read("comment", about));
    form.scrollIntoView({ block: "nearest" });
  }

  /**
   * Close the form for good and return the focus to the thumb.
   * @param {HTMLElement} form
   */
  #leave(form) {
    const article = messageOf(form);
    this.kept.write("comment", form.dataset.about ?? "", "");
    closeForm(article);
    const pressed = within(article, "button[data-verdict][aria-pressed='true']");
    (pressed ?? within(article, "button[data-verdict]")).focus();
  }

  /** @param {Event} event */
  async #send(event) {
    const form = /** @type {HTMLFormElement | null} */ (closest(event, "form.feedback"));
    if (!form) return;
    event.preventDefault();
    const { about = "", value } = form.dataset;
    const comment = fieldOf(form, "comment").value.trim();
    if (comment && !(await this.#tell(about, /** @type {Verdict} */ (value), comment))) return;
    this.#leave(form);
    this.announce(words.feedback.thanks);
  }

  /**
   * Escape closes the form.
   * @param {KeyboardEvent} event
   */
  press(event) {
    const form = closest(event, ".feedback");
    if (!form || event.key !== "Escape") return false;
    this.#leave(form);
    return true;
  }

  /**
   * Show a change of another tab; echoes of this tab's changes may be out of date and are skipped.
   * @param {Metadata<"feedback.changed">} at
   */
  follow({ message_id, value }) {
    if (this.#echoes.get(message_id)) this.#expectEchoes(message_id, -1);
    else this.#apply({ message_id, value });
  }

  /**
   * @param {string} message_id
   * @param {number} more
   */
  #expectEchoes(message_id, more) {
    this.#echoes.set(message_id, (this.#echoes.get(message_id) ?? 0) + more);
  }

  /** @param {{ message_id: string, value?: Verdict }} at */
  #apply({ message_id, value }) {
    const article = document.getElementById(`m-${message_id}`);
    verdicts.set(message_id, value);
    this.#news.add(message_id);
    if (!article) return;
    showVerdict(article);
    const form = article.querySelector("form.feedback");
    if (!value && form && !isInUse(/** @type {HTMLFormElement} */ (form))) closeForm(article);
  }

  /**
   * Replace all verdicts by those of that session as the server has them now, except those that
   * change meanwhile, and unless another session is shown by then; rejects as `askAll` does.
   * @param {string} session_id
   */
  async renew(session_id) {
    this.#news.clear();
    this.#echoes.clear();
    /** @type {{ message_id: string, value: Verdict }[]} */
    const rows = await askAll(apiOf(session_id, "feedback/"));
    if (session_id !== this.getCurrent()) return;
    const given = new Map(rows.map(({ message_id, value }) => [message_id, value]));
    for (const id of [...verdicts.keys(), ...given.keys()]) {
      if (!this.#news.has(id)) verdicts.set(id, given.get(id));
    }
    for (const article of all(document, ".assistant")) showVerdict(article);
  }

  /**
   * Save a verdict, or delete it, and show it; returns whether that worked.
   * @param {string} message_id
   * @param {Verdict | undefined} value
   */
  async #tell(message_id, value, comment = "") {
    const address = apiOf(this.getCurrent(), `messages/${message_id}/feedback/`);
    this.#expectEchoes(message_id, 1);
    try {
      const body = { value, comment };
      await ask(address, value ? { method: "PUT", body } : { method: "DELETE" });
    } catch (error) {
      this.#expectEchoes(message_id, -1);
      this.toast.show(describeFailure(error));
      return false;
    }
    this.#apply({ message_id, value });
    return true;
  }
}

/**
 * Open the comment form. It remembers the id of its reply, since another one may replace that in
 * `article`.
 * @param {HTMLElement} article
 * @param {string} about
 * @param {Verdict} value
 * @param {string} text
 */
function openForm(article, about, value, text) {
  const form = /** @type {HTMLFormElement} */ (fromTemplate("feedback-template"));
  Object.assign(form.dataset, { about, value });
  const comment = fieldOf(form, "comment");
  comment.placeholder = words.feedback[value];
  comment.ariaLabel = words.feedback[value];
  comment.value = text;
  within(article, ".actions").after(form);
  return form;
}

/** @param {Element} article */
function closeForm(article) {
  article.querySelector(".feedback")?.remove();
}

/**
 * Whether a comment is typed in the form, or about to be.
 * @param {HTMLFormElement} form
 */
function isInUse(form) {
  return fieldOf(form, "comment").value || form.contains(document.activeElement);
}

/**
 * The message element that contains an element.
 * @param {Element} element
 */
function messageOf(element) {
  return /** @type {HTMLElement} */ (element.closest(".message"));
}
