/** The log of messages: brings the page in line with a conversation, and follows its growing end. */

import { ReplyView, UserView, WORKING, stateOf } from "./message_view.js";

const NEAR_PX = 48;

export class Transcript {
  constructor({ log, scroller, jump }) {
    Object.assign(this, { log, scroller, jump });
    // What welcomes is read from its beginning.
    this.isFollowing = Boolean(this.#firstPlace());
    scroller.addEventListener("scroll", () => this.#look(), { passive: true });
    const growth = new ResizeObserver(() => this.#settle());
    growth.observe(log);
    growth.observe(scroller);
  }

  /** Take over the messages that the server has rendered. */
  adopt(conversation) {
    this.views = new Map();
    this.#adopt(conversation, conversation.messages);
  }

  #adopt(conversation, messages) {
    for (const message of messages) {
      const element = this.log.querySelector(`[data-message-id="${message.message_id}"]`);
      if (element) this.#add(conversation, message, element);
    }
  }

  /** Put earlier messages before the first one; what is in sight does not move. */
  prepend(elements, conversation) {
    const below = this.scroller.scrollHeight - this.scroller.scrollTop;
    this.#firstPlace().before(...elements.map((element) => document.adoptNode(element)));
    this.#adoptAll(elements, conversation);
    this.#rename(conversation);
    this.scroller.scrollTop = this.scroller.scrollHeight - below;
  }

  /** Put later messages behind the last one. */
  append(elements, conversation) {
    const added = elements.filter(({ id }) => !document.getElementById(id));
    this.isFollowing = false;
    this.log.append(...added.map((element) => document.adoptNode(element)));
    this.#adoptAll(added, conversation);
  }

  #adoptAll(elements, conversation) {
    const ids = new Set(elements.map((element) => element.dataset.messageId));
    this.#adopt(conversation, conversation.messages.filter(({ message_id: id }) => ids.has(id)));
  }

  /** A reply is named by its prompt, which may have come only now. */
  #rename(conversation) {
    for (const message of conversation.messages) {
      const key = keyOf(conversation, message);
      const view = this.views.get(message.message_id);
      if (!view || key === message.message_id) continue;
      this.views.delete(message.message_id);
      this.views.set(key, view);
    }
  }

  /** Show newly rendered messages in place of all that is there. */
  replace(elements, conversation) {
    for (const element of this.log.querySelectorAll(":scope > .message")) element.remove();
    this.log.append(...elements.map((element) => document.adoptNode(element)));
    this.adopt(conversation);
  }

  #add(conversation, message, element) {
    const View = message.role === "user" ? UserView : ReplyView;
    const view = new View(element, message);
    this.views.set(keyOf(conversation, message), view);
    view.showPlace(message, conversation.branch.siblingsOf(message));
    return view;
  }

  /** Show what the conversation shows now. */
  sync(conversation, isConnected) {
    const keep = new Set();
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

  #firstPlace() {
    return this.log.querySelector(".message");
  }

  #update(view, message, conversation, isConnected) {
    const position = conversation.positionOf(message);
    const isStopping = conversation.isStopping(message);
    const state = stateOf(message, { position, isStopping, isConnected });
    const siblings = conversation.branch.siblingsOf(message);
    const version = `${message.message_id} ${message.version ?? 0} ${state} ${siblings}`;
    if (view.version === version) return;
    view.version = version;
    // What the server has rendered stays, but for what still changes.
    if (message.version || WORKING.has(message.run_status)) view.update(message, state, position > 0);
    view.showPlace(message, siblings);
  }

  #remove(key) {
    const { element } = this.views.get(key);
    const hadFocus = element.contains(document.activeElement);
    element.remove();
    this.views.delete(key);
    if (hadFocus) document.getElementById("prompt").focus();
  }

  /** What a message of the user's says, wherever it has been rendered. */
  textOf({ message_id: id }) {
    return this.log.querySelector(`[data-message-id="${id}"] .body`)?.textContent ?? "";
  }

  /** Have a message `top` pixels below the top of the window, and stay there. */
  hold(id, top) {
    const element = document.getElementById(`m-${id}`);
    this.isFollowing = false;
    this.scroller.scrollTop += element.getBoundingClientRect().top - top;
  }

  /** Go to the end and stay there. */
  follow() {
    this.isFollowing = true;
    this.#settle();
  }

  /** The least step upwards lets go of the end, and a step back to it takes hold again. */
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

/** A reply is named by its prompt, so that its element stays when its id changes. */
function keyOf(conversation, message) {
  if (message.role === "user") return message.client_message_id ?? message.message_id;
  const prompt = conversation.get(message.parent_message_id);
  return prompt ? `reply to ${keyOf(conversation, prompt)}` : message.message_id;
}
