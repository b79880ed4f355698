/**
 * Which pages of the conversation are loaded, and which of its branches is shown.
 *
 * Says `replace` when other messages are shown, and `append` (detail: whether the end of the
 * conversation is reached) when later ones are. Of several pages that are asked for, the last one
 * is shown.
 */

import { loadHistory } from "../page/api.js";
import { describePlace } from "../page/labels.js";
import { addressOf } from "../sessions/list.js";
import { MoreMessages } from "./more_messages.js";
import { focusSwitcher } from "./switcher.js";

export class PageHistory extends /** @type {Emitter<{ replace: null, append: boolean }>} */ (
  EventTarget
) {
  #asked = 0;
  #isChoosing = false;

  /**
   * @param {{ conversation: Conversation, transcript: Transcript, scroller: HTMLElement,
   *   earlier: HTMLElement, later: HTMLElement, announce: Announce }} page
   */
  constructor({ conversation, transcript, scroller, earlier, later, announce }) {
    super();
    this.conversation = conversation;
    this.transcript = transcript;
    this.announce = announce;
    this.earlier = new MoreMessages({ element: earlier, scroller }, (page) => this.#prepend(page));
    this.later = new MoreMessages({ element: later, scroller }, (page) => this.#append(page));
  }

  /** @param {LoadedPage} page */
  #prepend({ data, messages }) {
    this.conversation.addEarlier(data);
    this.transcript.prepend(messages, this.conversation);
  }

  /** @param {LoadedPage} loaded */
  #append({ data, messages, page }) {
    const isEnd = !page.querySelector("#later [data-page]");
    this.conversation.addLater(data, isEnd);
    this.transcript.append(messages, this.conversation);
    this.dispatchEvent(new CustomEvent("append", { detail: isEnd }));
    this.tellBranch();
  }

  /**
   * Show the branch of another message in place of `shown`, the one that has its place now;
   * rejects where it cannot be had.
   * @param {string} id
   * @param {{ shown: HTMLElement, isNext: boolean }} at
   */
  async switchTo(id, { shown, isNext }) {
    const { top } = shown.getBoundingClientRect();
    if (!(await this.#choose(addressOf(this.conversation.sessionId, id)))) return;
    this.transcript.hold(id, top);
    this.tellBranch();
    focusSwitcher(id, { isNext });
    const { branch } = this.conversation;
    const ids = branch.siblingsOf(branch.get(id) ?? {});
    this.announce(describePlace(ids.indexOf(id), ids.length));
  }

  /** Go to the end of the conversation, also where that has not been loaded; may reject. */
  async showLatest() {
    const { later, conversation } = this;
    if (later.address && !(await this.#choose(addressOf(conversation.sessionId)))) return;
    this.tellBranch();
    this.transcript.follow();
  }

  /** Show what the server renders now in place of what is shown; may reject. */
  async reload() {
    this.#isChoosing = false;
    const { sessionId, branch } = this.conversation;
    await this.#replace(addressOf(sessionId, branch.chosen));
  }

  /** Stay where one is: another branch that was asked for is not shown when it comes. */
  stay() {
    if (this.#isChoosing) this.#asked += 1;
    this.#isChoosing = false;
  }

  /** @param {string} address */
  async #choose(address) {
    this.#isChoosing = true;
    return this.#replace(address);
  }

  /**
   * Whether the page at `address` is shown now: not where another one was asked for since.
   * @param {string} address
   */
  async #replace(address) {
    this.#asked += 1;
    const asked = this.#asked;
    const loaded = await loadHistory(address);
    if (asked !== this.#asked) return false;
    this.#isChoosing = false;
    this.conversation.load(loaded.data);
    this.transcript.replace(loaded.messages, this.conversation);
    this.earlier.goOnFrom(loaded);
    this.later.goOnFrom(loaded);
    this.dispatchEvent(new Event("replace"));
    return true;
  }

  /** Have the address name what is shown. */
  tellBranch() {
    const { sessionId, branch } = this.conversation;
    const address = addressOf(sessionId, branch.chosen);
    if (sessionId) history.replaceState(history.state, "", address);
    if (!branch.chosen) this.later.clear();
  }
}
