/** The log of messages: shows a conversation, and follows its growing end. */

import { isActive } from "../conversation/stored_messages.js";
import { all, byId } from "../page/elements.js";
import { describeState } from "../page/labels.js";
import { waitingText } from "../page/model.js";
import { ReplyView, UserView } from "./message_view.js";

/** @typedef {UserView | ReplyView} MessageView */

const NEAR_PX = 48;

export class Transcript {
  /** @type {Map<string, MessageView>} */
  views = new Map();
  scrollTop = 0;

  /** @param {{ log: HTMLElement, scroller: HTMLElement, jump: HTMLElement }} at */
  constructor({ log, scroller, jump }) {
    this.log = log;
    this.scroller = scroller;
    this.jump = jump;
    // An empty page shows a welcome, which is read from its beginning.
    this.isFollowing = Boolean(this.#firstPlace());
    scroller.addEventListener("scroll", () => this.#look(), { passive: true });
    const growth = new ResizeObserver(() => this.#settle());
    growth.observe(log);
    growth.observe(scroller);
  }

  /**
   * Take over the elements that the server has rendered.
   * @param {Conversation} conversation
   */
  adopt(conversation) {
    this.views = new Map();
    this.#adopt(conversation, conversation.messages);
  }

  /**
   * @param {Conversation} conversation
   * @param {Message[]} messages
   */
  #adopt(conversation, messages) {
    for (const message of messages) {
      const element = this.#find(message.message_id);
      if (element) this.#add(conversation, message, element);
    }
  }

  /**
   * @param {string} id
   * @returns {HTMLElement | null}
   */
  #find(id) {
    return this.log.querySelector(`[data-message-id="${id}"]`);
  }

  /**
   * Put earlier messages before the first one; messages in sight do not move.
   * @param {HTMLElement[]} elements
   * @param {Conversation} conversation
   */
  prepend(elements, conversation) {
    const below = this.scroller.scrollHeight - this.scroller.scrollTop;
    this.#firstPlace()?.before(...elements.map((element) => document.adoptNode(element)));
    this.#adoptAll(elements, conversation);
    this.#rename(conversation);
    this.scroller.scrollTop = this.scroller.scrollHeight - below;
  }

  /**
   * Put later messages after the last one.
   * @param {HTMLElement[]} elements
   * @param {Conversation} conversation
   */
  append(elements, conversation) {
    const added = elements.filter(({ id }) => !document.getElementById(id));
    this.isFollowing = false;
    this.log.append(...added.map((element) => document.adoptNode(element)));
    this.#adoptAll(added, conversation);
  }

  /**
   * @param {HTMLElement[]} elements
   * @param {Conversation} conversation
   */
  #adoptAll(elements, conversation) {
    const ids = new Set(elements.map((element) => element.dataset.messageId));
    this.#adopt(
      conversation,
      conversation.messages.filter(({ message_id: id }) => ids.has(id)),
    );
  }

  /**
   * The key of a reply contains that of its prompt, which may have arrived only now.
   * @param {Conversation} conversation
   */
  #rename(conversation) {
    for (const message of conversation.messages) {
      const key = keyOf(conversation, message);
      const view = this.views.get(message.message_id);
      if (!view || key === message.message_id) continue;
      this.views.delete(message.message_id);
      this.views.set(key, view);
    }
  }

  /**
   * Replace all messages by newly rendered ones.
   * @param {HTMLElement[]} elements
   * @param {Conversation} conversation
   */
  replace(elements, conversation) {
    for (const element of all(this.log, ":scope > .message")) element.remove();
    this.log.append(...elements.map((element) => document.adoptNode(element)));
    this.adopt(conversation);
  }

  /**
   * @param {Conversation} conversation
   * @param {Message} message
   * @param {HTMLElement} [element]
   */
  #add(conversation, message, element) {
    const isUser = message.role === "user";
    const view = isUser ? new UserView(element) : new ReplyView(element, message);
    this.views.set(keyOf(conversation, message), view);
    view.showPlace(message, conversation.branch.siblingsOf(message));
    return view;
  }

  /**
   * Bring the log in line with the conversation.
   * @param {Conversation} conversation
   * @param {boolean} isConnected
   */
  sync(conversation, isConnected) {
    const keep = new Set();
    /** @type {Element | null} */
    let place = this.#firstPlace();
    for (const message of conversation.messages) {
      const key = keyOf(conversation, message);
      const view = this.views.get(key) ?? this.#add(conversation, message);
      keep.add(key);
      if (view.element === place) place = place.nextElementSibling;
      else this.log.insertBefore(view.element, place);
      this.#update(view, message, conversation, isConnected);
    }
    for (const key of this.views.keys()) if (!keep.has(key)) this.#remove(key);
    this.log.toggleAttribute("data-busy", conversation.isBusy);
  }

  /** @returns {HTMLElement | null} */
  #firstPlace() {
    return this.log.querySelector(".message");
  }

  /**
   * @param {MessageView} view
   * @param {Message} message
   * @param {Conversation} conversation
   * @param {boolean} isConnected
   */
  #update(view, message, conversation, isConnected) {
    const position = conversation.positionOf(message);
    const isStopping = conversation.isStopping(message);
    const waiting = waitingText(message);
    const state = describeState(message, { position, isStopping, isConnected, waiting });
    const siblings = conversation.branch.siblingsOf(message);
    const version = `${message.message_id} ${message.version ?? 0} ${state} ${siblings}`;
    if (view.version === version) return;
    view.version = version;
    // What the server has rendered stays, unless it has changed or can still change.
    if (message.version || isActive(message)) view.update(message, state, position > 0);
    view.showPlace(message, siblings);
  }

  /** @param {string} key */
  #remove(key) {
    const element = this.views.get(key)?.element;
    if (!element) return;
    const hadFocus = element.contains(document.activeElement);
    element.remove();
    this.views.delete(key);
    if (hadFocus) byId("prompt").focus();
  }

  /**
   * The text of a user's message, rendered by the server or by this page.
   * @param {Message} at
   */
  textOf({ message_id: id }) {
    return this.#find(id)?.querySelector(".body")?.textContent ?? "";
  }

  /**
   * Scroll a message to `top` pixels below the top of the window, and stop following the end.
   * @param {string} id
   * @param {number} top
   */
  hold(id, top) {
    const element = byId(`m-${id}`);
    this.isFollowing = false;
    this.scroller.scrollTop += element.getBoundingClientRect().top - top;
  }

  /** Scroll to the end and follow it. */
  follow() {
    this.isFollowing = true;
    this.#settle();
  }

  /** Any step upwards stops following the end; a step down to near the end follows again. */
  #look() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    const rest = scrollHeight - scrollTop - clientHeight;
    const step = scrollTop - this.scrollTop;
    this.scrollTop = scrollTop;
    if (rest <= 1 || (step > 0 && rest < NEAR_PX)) this.isFollowing = true;
    else if (step < 0 || rest >= NEAR_PX) this.isFollowing = false;
    this.jump.hidden = this.isFollowing || rest < NEAR_PX || !this.#firstPlace();
  }

  #settle() {
    if (this.isFollowing) this.scroller.scrollTop = this.scroller.scrollHeight;
    this.#look();
  }
}

/**
 * A reply's key is derived from its prompt, so its element stays when its id changes.
 * @param {Conversation} conversation
 * @param {Message} message
 * @returns {string}
 */
function keyOf(conversation, message) {
  if (message.role === "user") return message.client_message_id ?? message.message_id;
  const prompt = conversation.get(message.parent_message_id);
  return prompt ? `reply to ${keyOf(conversation, prompt)}` : message.message_id;
}
