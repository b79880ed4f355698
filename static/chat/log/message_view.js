/** One message on the page; a reply keeps its element from "sending" to its end. */

import { isActive } from "../conversation/branch.js";
import { textsOf } from "../conversation/parts.js";
import { isUnsentReply } from "../conversation/unsent_messages.js";
import { finishBlocks } from "../markdown/finish/blocks.js";
import { fromTemplate, setText, within } from "../page/elements.js";
import { describeEnding, describeTime, describeUsage, labelOfAgent } from "../page/labels.js";
import { data, language } from "../page/words.js";
import { adoptThoughts } from "./activity_parts.js";
import { showVerdict } from "./feedback.js";
import { ReplyBody } from "./reply_body.js";
import { showPlace } from "./switcher.js";

/** What the views of both roles share. */
class MessageView {
  /** What is shown now, so that it is not drawn again; see `Transcript`. */
  version = "";

  /** @param {HTMLElement} element */
  constructor(element) {
    this.element = element;
  }

  /**
   * Show which of its siblings, whose ids are `siblings`, the message is.
   * @param {Message} message
   * @param {string[]} siblings
   */
  showPlace(message, siblings) {
    showPlace(this.element, message, siblings);
  }
}

export class UserView extends MessageView {
  /** @param {HTMLElement} element */
  constructor(element = fromTemplate("user-template")) {
    super(element);
    showTime(within(element, "time.sent"));
  }

  /** @param {Message} message */
  update(message) {
    nameElement(this.element, message);
    this.element.dataset.state = message.state ?? "";
    const [part] = message.parts ?? [];
    // The server has rendered it, and it never changes.
    if (part?.type === "text") setText(within(this.element, ".body"), part.text);
    showTime(within(this.element, "time.sent"), message.created_at);
    this.#note(message);
  }

  /** @param {Message} message */
  #note(message) {
    const note = within(this.element, ".note");
    const isRefused = message.state === "refused";
    if (!isRefused) note.replaceChildren();
    else if (!note.childElementCount) note.append(newRefusal());
    if (isRefused) setText(within(note, ".note-text"), message.note ?? "");
  }
}

function newRefusal() {
  const template = /** @type {HTMLTemplateElement} */ (document.getElementById("refused-template"));
  return template.content.cloneNode(true);
}

export class ReplyView extends MessageView {
  /**
   * @param {HTMLElement} element
   * @param {Partial<Message>} message
   */
  constructor(element = fromTemplate("assistant-template"), message = {}) {
    super(element);
    if (!message.parts) {
      finishBlocks(element);
      adoptThoughts(element);
    }
    this.usage = within(element, "[role=tooltip]").textContent;
    this.messageId = element.dataset.messageId;
    this.body = new ReplyBody(within(element, ".body"), message.parts);
    this.generation = message.generation;
    this.#showTime();
    showVerdict(element);
  }

  /**
   * @param {Message} message
   * @param {string} state what it is doing, as text
   * @param {boolean} isWaiting
   */
  update(message, state, isWaiting) {
    if (this.messageId !== message.message_id) this.#begin(message);
    const { dataset } = this.element;
    dataset.status = message.run_status;
    setFlag(dataset, "waiting", isWaiting);
    setFlag(dataset, "limited", message.error_code?.startsWith("limit_"));
    setFlag(dataset, "live", message.run_status === "running");
    if (message.agent) this.#showAgent(message);
    setText(within(this.element, ".state"), isActive(message) ? state : "");
    if (message.parts) {
      setFlag(dataset, "text", textsOf(message.parts).length > 0);
      this.#showParts(message, message.parts);
    }
    if (message.parts) setText(within(this.element, ".ending"), describeEnding(message));
    this.#showTime(message);
    showSummary(this.element, message.summary);
  }

  /** @param {Message} message */
  #begin({ message_id }) {
    if (this.messageId && !isUnsentReply(this.messageId)) this.body.clear();
    this.messageId = message_id;
    this.usage = "";
    nameElement(this.element, { message_id });
    showVerdict(this.element);
  }

  /** @param {Message} message */
  #showAgent(message) {
    setText(within(this.element, ".who"), labelOfAgent(message));
    within(this.element, ".badge").hidden = message.agent !== data.scripted_agent;
  }

  /**
   * @param {Message} message
   * @param {Part[]} parts
   */
  #showParts(message, parts) {
    if (message.generation !== this.generation) this.body.clear();
    this.generation = message.generation;
    if (isActive(message)) this.body.grow(parts);
    else this.body.finish(parts, message.html);
  }

  /**
   * Show the time and, in its tooltip, the usage; without a `message` those that are in the element.
   * @param {Partial<Message>} message
   */
  #showTime(message = {}) {
    const element = within(within(this.element, ".when"), "time");
    const tip = /** @type {HTMLElement} */ (element.nextElementSibling);
    this.usage = describeUsage(message.usage) || this.usage;
    if (!showTime(element, message.created_at)) return;
    const date = new Date(element.dateTime).toLocaleString(language);
    setText(tip, [date, this.usage].filter(Boolean).join(" · "));
  }
}

/**
 * Show a moment, or the one that is in the element, in the reader's zone; returns whether there is
 * one.
 * @param {HTMLTimeElement} element
 * @param {string} [createdAt]
 */
function showTime(element, createdAt = element.dateTime) {
  if (!createdAt) return false;
  element.dateTime = createdAt;
  setText(element, describeTime(new Date(createdAt)));
  return true;
}

/**
 * Below a reply: the summary that the model is given in place of all messages down to here; with an
 * empty `text`, a note that they are left out. Undefined changes nothing.
 * @param {HTMLElement} article
 * @param {string | undefined} text
 */
function showSummary(article, text) {
  if (text === undefined || article.querySelector(":scope > .summary")) return;
  const line = fromTemplate(text ? "summary-template" : "left-out-template");
  if (text) setText(within(line, ".summary-text"), text);
  article.append(line);
}

/**
 * @param {HTMLElement} element
 * @param {Message} message
 */
function nameElement(element, { message_id }) {
  element.dataset.messageId = message_id;
  element.id = `m-${message_id}`;
}

/**
 * @param {DOMStringMap} dataset
 * @param {string} name
 * @param {boolean | undefined} isSet
 */
function setFlag(dataset, name, isSet) {
  if (isSet) dataset[name] = "";
  else delete dataset[name];
}
