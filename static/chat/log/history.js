/**
 * Loads pages of the conversation, and knows which of its branches is shown.
 *
 * Dispatches `replace` when other messages are shown, `append` (detail: whether the end of the
 * conversation is reached) when later ones are added, and `remain` when another conversation is not
 * opened after all. Of several pages that are requested, only the
 * last is shown.
 */

import { loadHistory } from "../page/api.js";
import { within } from "../page/elements.js";
import { describePlace } from "../page/labels.js";
import { addressOf } from "../sessions/list.js";
import { focusSwitcher } from "./switcher.js";

const AHEAD = "1000px 0px";

export class PageHistory extends /** @type {Emitter<PageHistoryEvents>} */ (EventTarget) {
  #asked = 0;
  #opened = 0;
  /** Whether the page of another conversation is loading, to be shown. */
  isOpening = false;
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
   * Show the branch of the message `id` in place of `shown`, its sibling; rejects if it cannot be
   * loaded.
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

  /** Go to the end of the conversation, even if it has not been loaded; may reject. */
  async showLatest() {
    const { later, conversation } = this;
    if (later.address && !(await this.#choose(addressOf(conversation.sessionId)))) return;
    this.tellBranch();
    this.transcript.follow();
  }

  /** Replace what is shown by what the server renders now; may reject. */
  async reload() {
    this.#isChoosing = false;
    const { sessionId, branch } = this.conversation;
    await this.#replace(addressOf(sessionId, branch.chosen));
  }

  /**
   * Load the page of another conversation, which `open` shows then; undefined if something else was
   * asked for meanwhile. May reject.
   * @param {string} address
   */
  async load(address) {
    this.stay();
    this.isOpening = true;
    const opened = this.#opened;
    const isLast = () => opened === this.#opened;
    try {
      const loaded = await loadHistory(address);
      return isLast() ? loaded : undefined;
    } catch (error) {
      if (isLast()) throw error;
    } finally {
      if (isLast()) this.isOpening = false;
    }
  }

  /**
   * Show another conversation.
   * @param {LoadedPage} loaded
   */
  open(loaded) {
    this.stay();
    // What is still loading is of the conversation before.
    this.#asked += 1;
    this.conversation.open(loaded.data);
    this.transcript.open(loaded.messages, this.conversation);
    this.earlier.goOnFrom(loaded);
    this.later.goOnFrom(loaded);
    this.dispatchEvent(new Event("replace"));
  }

  /** Stay in this conversation and on its branch: drop the result of a pending switch. */
  stay() {
    this.#opened += 1;
    this.isOpening = false;
    if (this.#isChoosing) this.#asked += 1;
    this.#isChoosing = false;
  }

  /** The same, for good: the user goes on in this conversation while another one loads. */
  remain() {
    const { isOpening } = this;
    this.stay();
    if (isOpening) this.dispatchEvent(new Event("remain"));
  }

  /** @param {string} address */
  async #choose(address) {
    this.stay();
    this.#isChoosing = true;
    return this.#replace(address);
  }

  /**
   * Load and show the page at `address`; false if another one was requested meanwhile.
   * @param {string} address
   */
  async #replace(address) {
    this.#asked += 1;
    const asked = this.#asked;
    const loaded = await loadHistory(address);
    if (asked !== this.#asked) return false;
    this.#isChoosing = false;
    const hasEarlier = this.conversation.load(loaded.data);
    this.transcript.replace(loaded.messages, this.conversation);
    if (!hasEarlier) this.earlier.goOnFrom(loaded);
    this.later.goOnFrom(loaded);
    this.dispatchEvent(new Event("replace"));
    return true;
  }

  /** Put the shown branch into the page's address. */
  tellBranch() {
    const { sessionId, branch } = this.conversation;
    const address = addressOf(sessionId, branch.chosen);
    if (sessionId) history.replaceState(history.state, "", address);
    if (!branch.chosen) this.later.clear();
  }
}

/** Loads messages beyond one end of the log, a page at a time, when the user scrolls there. */
export class MoreMessages {
  /** @type {Promise<boolean> | null} */
  #loading = null;

  /**
   * `element` holds the link to the next page and has the same id in that page; `add` adds the
   * messages of a loaded page.
   * @param {{ element: HTMLElement, scroller: HTMLElement }} where
   * @param {(page: LoadedPage) => void} add
   */
  constructor({ element, scroller }, add) {
    this.element = element;
    this.add = add;
    this.watcher = new IntersectionObserver(([entry]) => entry.isIntersecting && this.load(), {
      root: scroller,
      rootMargin: AHEAD,
    });
    this.#watch();
  }

  get address() {
    return within(this.element, "a[data-page]")?.href ?? "";
  }

  /**
   * Continue after that page.
   * @param {LoadedPage} at
   */
  goOnFrom({ page }) {
    this.element.replaceChildren(...(page.getElementById(this.element.id)?.childNodes ?? []));
    this.#watch();
  }

  /** There are no more messages. */
  clear() {
    this.element.replaceChildren();
    this.#watch();
  }

  /**
   * Observe anew: a new observation also reports an element that is in sight already. What is still
   * loading is of an address that has been replaced.
   */
  #watch() {
    this.#loading = null;
    this.watcher.disconnect();
    if (this.address) this.watcher.observe(this.element);
  }

  /** Load one page; false if there is none or it cannot be loaded now. */
  async load() {
    if (!this.address) return false;
    this.#loading ??= this.#load();
    const loading = this.#loading;
    const isLoaded = await loading;
    if (this.#loading === loading) this.#loading = null;
    return isLoaded;
  }

  /** Load all pages; false if one cannot be loaded now. */
  async loadAll() {
    while (this.address) if (!(await this.load())) return false;
    return true;
  }

  async #load() {
    const { address } = this;
    try {
      const more = await loadHistory(address);
      // Another branch may be shown by now.
      if (address !== this.address) return false;
      this.add(more);
      this.goOnFrom(more);
      return true;
    } catch {
      return false;
    }
  }
}
