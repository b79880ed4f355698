/** The log of messages: shows a conversation, and follows its growing end. */

import { ACTIVE, isActive } from "../conversation/branch.js";
import { isUnsent } from "../conversation/unsent_messages.js";
import { all, byId } from "../page/elements.js";
import { describeState } from "../page/labels.js";
import { waitingText } from "../page/model.js";
import { FarMessages } from "./far_messages.js";
import { ReplyView, UserView } from "./message_view.js";
import { carryOver, rememberFocus } from "./reading_place.js";

/** @typedef {UserView | ReplyView} MessageView */

const NEAR_PX = 48;

export class Transcript {
  /** @type {Map<string, MessageView>} */
  views = new Map();
  scrollTop = 0;
  #width = 0;
  /**
   * The block at the top of the window; undefined while the end is followed.
   * @type {ReturnType<typeof placeIn> | undefined}
   */
  #place;
  /**
   * The messages of the last `sync`: while they are the same, only those that have changed are drawn.
   * @type {Branch | undefined}
   */
  #branch;
  #structure = -1;

  /**
   * `restore` puts back into a message what was typed in it and not sent.
   * @param {{ log: HTMLElement, scroller: HTMLElement, jump: HTMLElement,
   *   restore: (element: HTMLElement) => void }} at
   */
  constructor({ log, scroller, jump, restore }) {
    this.log = log;
    this.scroller = scroller;
    this.jump = jump;
    this.restore = restore;
    // An empty page shows a welcome, which is read from its beginning.
    this.isFollowing = Boolean(this.#firstPlace());
    scroller.addEventListener("scroll", () => this.#look(), { passive: true });
    this.far = new FarMessages({ log, scroller });
    const growth = new ResizeObserver(() => {
      this.#holdPlace();
      this.#settle();
    });
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
   * Show the messages of another conversation, from their end.
   * @param {HTMLElement[]} elements
   * @param {Conversation} conversation
   */
  open(elements, conversation) {
    for (const { element } of this.views.values()) this.#removeElement(element);
    this.log.append(...elements.map((element) => document.adoptNode(element)));
    this.adopt(conversation);
    byId("welcome").hidden = elements.length > 0;
    this.isFollowing = elements.length > 0;
    this.#settle();
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
   * Show newly rendered messages in place of all others. Ended messages that are shown already stay
   * as they are, so that readers keep their place, what they have opened and what they type.
   * @param {HTMLElement[]} elements
   * @param {Conversation} conversation
   */
  replace(elements, conversation) {
    const before = new Map(this.views);
    const views = new Map([...before.values()].map((view) => [view.element, view]));
    const rendered = new Map(elements.map((element) => [element.dataset.messageId, element]));
    const reading = this.#findReading();
    const restore = rememberFocus(this.log);
    this.views = new Map();
    for (const message of conversation.messages) {
      const shown = this.#find(message.message_id);
      const element = rendered.get(message.message_id);
      const view = shown && views.get(shown);
      if (view && (!element || isSame(view.element, element))) {
        this.views.set(keyOf(conversation, message), view);
      } else if (element) {
        this.#add(conversation, message, document.adoptNode(element));
        if (shown) carryOver(shown, element);
      }
    }
    const kept = new Set(this.views.values());
    for (const [key, view] of before) if (!kept.has(view)) this.#drop(key, view);
    this.#arrange();
    restore();
    if (reading && !this.isFollowing) this.hold(reading.id, reading.top);
  }

  /**
   * Remove a view that is not shown any more; that of an unsent message stays.
   * @param {string} key
   * @param {MessageView} view
   */
  #drop(key, view) {
    if (!this.views.has(key) && isUnsent(view.element.dataset.messageId)) this.views.set(key, view);
    else this.#removeElement(view.element);
  }

  /** @param {HTMLElement} element */
  #removeElement(element) {
    this.far.forget(element);
    element.remove();
  }

  /** Put the elements of all views in their order; those in their place already are not moved. */
  #arrange() {
    /** @type {Element | null} */
    let place = this.#firstPlace();
    for (const { element } of this.views.values()) {
      if (element === place) place = place.nextElementSibling;
      else this.log.insertBefore(element, place);
    }
  }

  /** The first message in sight, and its place in the window; undefined if none is shown. */
  #findReading() {
    const { top } = this.scroller.getBoundingClientRect();
    const shown = all(this.log, ":scope > .message");
    const element = shown.find((message) => message.getBoundingClientRect().bottom > top);
    if (!element) return;
    return { id: element.dataset.messageId ?? "", top: element.getBoundingClientRect().top };
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
    this.far.watch(view.element);
    view.showPlace(message, conversation.branch.siblingsOf(message));
    this.restore(view.element);
    return view;
  }

  /**
   * Bring the log in line with the conversation.
   * @param {Conversation} conversation
   * @param {boolean} isConnected
   */
  sync(conversation, isConnected) {
    const { branch, unsent } = conversation;
    const { structure } = branch;
    const isSame = !unsent.size && branch === this.#branch && structure === this.#structure;
    this.#branch = branch;
    this.#structure = unsent.size ? -1 : structure;
    // What an active reply is doing may have changed without it.
    const changed = new Set([...branch.takeChanged(), ...branch.active]);
    const isDrawn = isSame && this.#updateOnly(changed, conversation, isConnected);
    if (!isDrawn) this.#syncAll(conversation, isConnected);
    this.log.toggleAttribute("data-busy", conversation.isBusy);
  }

  /**
   * Update these messages; returns false if one of them is not shown yet.
   * @param {Set<Message>} messages
   * @param {Conversation} conversation
   * @param {boolean} isConnected
   */
  #updateOnly(messages, conversation, isConnected) {
    for (const message of messages) {
      const view = this.views.get(keyOf(conversation, message));
      if (!view) return false;
      this.#update(view, message, conversation, isConnected);
    }
    return true;
  }

  /**
   * @param {Conversation} conversation
   * @param {boolean} isConnected
   */
  #syncAll(conversation, isConnected) {
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
    byId("welcome").hidden = keep.size > 0;
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
    this.#removeElement(element);
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
    const element = document.getElementById(`m-${id}`);
    this.isFollowing = false;
    if (element) this.scroller.scrollTop += element.getBoundingClientRect().top - top;
  }

  /** Scroll to the end and follow it. */
  follow() {
    this.isFollowing = true;
    this.#settle();
  }

  /** When the width has changed, and with it all heights, the same words stay at the top. */
  #holdPlace() {
    const { clientWidth } = this.scroller;
    if (clientWidth === this.#width) return;
    this.#width = clientWidth;
    if (!this.#place?.block.isConnected) return;
    const { block, below, share } = this.#place;
    const { top, height } = block.getBoundingClientRect();
    const wanted = this.scroller.getBoundingClientRect().top + below - share * height;
    this.scroller.scrollTop += top - wanted;
    // It is no step of the reader's.
    this.scrollTop = this.scroller.scrollTop;
  }

  /** Any step upwards stops following the end; a step down to near the end follows again. */
  #look() {
    const { scrollTop, scrollHeight, clientHeight, clientWidth } = this.scroller;
    // The place is held first.
    if (clientWidth !== this.#width) return;
    const rest = scrollHeight - scrollTop - clientHeight;
    const step = scrollTop - this.scrollTop;
    this.scrollTop = scrollTop;
    if (step) this.scroller.closest(".conversation")?.toggleAttribute("data-down", step > 0);
    if (rest <= 1 || (step > 0 && rest < NEAR_PX)) this.isFollowing = true;
    else if (step < 0 || rest >= NEAR_PX) this.isFollowing = false;
    this.jump.hidden = this.isFollowing || rest < NEAR_PX || !this.#firstPlace();
    this.#place = this.isFollowing ? undefined : placeIn(this.log, this.scroller);
  }

  #settle() {
    if (this.isFollowing) this.scroller.scrollTop = this.scroller.scrollHeight;
    this.#look();
  }
}

/**
 * The first block in sight: it begins so many pixels `below` the top of the window, or the `share`
 * of its height is above that.
 * @param {HTMLElement} log
 * @param {HTMLElement} scroller
 */
function placeIn(log, scroller) {
  const { top } = scroller.getBoundingClientRect();
  const block = blockAt(log, top);
  const { top: begin, height } = block.getBoundingClientRect();
  const below = begin - top;
  return below >= 0 || !height
    ? { block, below, share: 0 }
    : { block, below: 0, share: -below / height };
}

/**
 * The innermost block that reaches below `top`; lines of text are no blocks.
 * @param {Element} element
 * @param {number} top
 * @returns {Element}
 */
function blockAt(element, top) {
  const child = [...element.children].find((one) => one.getBoundingClientRect().bottom > top);
  return child && getComputedStyle(child).display !== "inline" ? blockAt(child, top) : element;
}

/**
 * Whether a message is shown already as the server has rendered it now.
 * @param {HTMLElement} shown
 * @param {HTMLElement} rendered
 */
function isSame(shown, rendered) {
  const { status = "" } = shown.dataset;
  const isSummarised = rendered.querySelector(":scope > .summary") !== null;
  const hasSummary = shown.querySelector(":scope > .summary") !== null;
  return (
    status === (rendered.dataset.status ?? "") && !ACTIVE.has(status) && isSummarised === hasSummary
  );
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
