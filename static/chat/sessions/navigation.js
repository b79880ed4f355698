/**
 * Opens conversations without loading the page: what the page shows is replaced, and the socket
 * stays open. Without a socket, links and the browser's buttons load pages.
 */

import { addVerdicts } from "../log/feedback.js";
import { Refused } from "../page/api.js";
import { all, byId, closest } from "../page/elements.js";
import { data, renewData, words } from "../page/words.js";
import { addressOf } from "./list.js";

const LINKS = "#session-list a, #session-found a, #later a";
/** Whoever has waited for so long is told that something is loading. */
const PATIENCE_MS = 400;
const SESSION = new RegExp(`^${addressOf("[0-9a-f-]{36}")}$`);

export class Navigation {
  /** The address that is shown, as far as this object knows. */
  #shown = addressIn(location);
  #index = indexOfPage();
  #timer = 0;

  /**
   * @param {{ connection: Connection, conversation: Conversation, history: PageHistory,
   *   sender: Sender, picker: AgentPicker, draft: Draft, composer: Composer, queue: Queue,
   *   manager: SessionManager, title: PageTitle, place: ReadingPlace, announce: Announce }} page
   */
  constructor(page) {
    this.page = page;
    document.addEventListener("click", (event) => this.#press(event));
    addEventListener("popstate", () => this.#return());
    page.history.addEventListener("remain", () => this.#remain());
  }

  /**
   * Follow a link to a conversation, unless it is to be opened elsewhere.
   * @param {MouseEvent} event
   */
  #press(event) {
    const link = /** @type {HTMLAnchorElement | null} */ (closest(event, LINKS));
    const isModified = event.ctrlKey || event.metaKey || event.shiftKey || event.altKey;
    if (!link || isModified || event.button || event.defaultPrevented || !this.#isAble(link))
      return;
    event.preventDefault();
    this.#open(link.href, () => this.#enter(link));
  }

  /** @param {HTMLAnchorElement | Location} to */
  #isAble({ pathname }) {
    return SESSION.test(pathname) && this.page.connection.state === "open";
  }

  /**
   * Put the address of a link into the browser's history, as a new entry unless it is shown already.
   * @param {HTMLAnchorElement} link
   */
  #enter(link) {
    const isSame = addressIn(link) === addressIn(location);
    if (isSame) history.replaceState(null, "", link.href);
    else history.pushState(null, "", link.href);
  }

  /** Show the conversation that the browser has gone back or forward to. */
  #return() {
    const { sessionId, branch } = this.page.conversation;
    const address = addressIn(location);
    // A link within the page, such as one to the messages, or the way back from what still loads.
    if (address === this.#shown || address === addressOf(sessionId, branch.chosen)) {
      this.page.history.stay();
      this.#rest();
    } else if (this.#isAble(location)) {
      const { href } = location;
      // What was accepted meanwhile may have put the address of its conversation there.
      const enter = () => history.replaceState(null, "", href);
      this.#open(href, enter, () => location.assign(href));
    } else location.reload();
  }

  /**
   * Escape stays in the conversation that is shown, while another one loads.
   * @param {KeyboardEvent} event
   */
  press({ key }) {
    const pages = this.page.history;
    if (key !== "Escape" || !pages.isOpening) return false;
    pages.remain();
    return true;
  }

  /**
   * What loads is not opened: if the browser has gone back or forward to it, return to what is shown.
   */
  #remain() {
    this.#rest();
    const { sessionId, branch } = this.page.conversation;
    const address = sessionId ? addressOf(sessionId, branch.chosen) : this.#shown;
    if (address === addressIn(location)) return;
    const steps = this.#index - indexOfPage();
    if (steps) history.go(steps);
    else history.replaceState(null, "", address);
  }

  /**
   * Load a conversation and show it, if nothing else is asked for meanwhile. `enter` puts its
   * address into the browser's history; `leave` is called if nothing could be loaded.
   * @param {string} address
   * @param {() => void} enter
   */
  async #open(address, enter, leave = () => this.#tell(words.manage.failed)) {
    clearTimeout(this.#timer);
    const timer = setTimeout(() => this.#tellLoading(), PATIENCE_MS);
    this.#timer = timer;
    const { activeElement: focused } = document;
    const asking = { focused, typed: this.page.composer.input.value };
    try {
      const loaded = await this.page.history.load(address);
      if (loaded?.data.user === data.user) this.#show(loaded, enter, asking);
      else if (loaded) location.assign(address);
    } catch (error) {
      // The server says more of it than this page could.
      if (error instanceof Refused) location.assign(address);
      else leave();
    }
    if (timer === this.#timer) this.#rest();
  }

  /** @param {string} text */
  #tell(text) {
    this.page.manager.toast.show(text);
  }

  /** A notice that offers to undo something stays. */
  #tellLoading() {
    const { manager, announce } = this.page;
    if (manager.toast.offersUndo) announce(words.loading);
    else this.#tell(words.loading);
  }

  /** Nothing is loading any more. */
  #rest() {
    const { toast } = this.page.manager;
    clearTimeout(this.#timer);
    if (toast.text.textContent === words.loading) toast.hide();
  }

  /**
   * Show a conversation; `asking` is where the focus was, and what was typed, when it was asked for.
   * The focus moves to the composer unless it has left that place meanwhile.
   * @param {LoadedPage} loaded
   * @param {() => void} enter
   * @param {{ focused: Element | null, typed: string }} asking
   */
  #show(loaded, enter, asking) {
    const { history, sender, picker, draft, manager, title, place, announce } = this.page;
    const focused = /** @type {HTMLElement} */ (document.activeElement);
    this.#leave();
    enter();
    this.#shown = addressIn(location);
    this.#index = indexOfPage();
    renewData(loaded.data);
    addVerdicts(loaded.data);
    const welcome = loaded.page.getElementById("welcome");
    byId("welcome").replaceChildren(...(welcome?.childNodes ?? []));
    title.rename(loaded.page.getElementById("title")?.textContent ?? "");
    history.open(loaded);
    aimVisitor();
    sender.open();
    picker.choose(loaded.data.agent.name);
    draft.open(asking.typed);
    manager.open();
    announce(byId("title").textContent);
    this.#focus(focused === asking.focused ? document.body : focused);
    place.restore();
  }

  /**
   * Leave the focus where it was, if that is still shown.
   * @param {HTMLElement} focused
   */
  #focus(focused) {
    if (focused === document.body || !focused.checkVisibility()) this.page.composer.focus();
    else focused.focus({ preventScroll: true });
  }

  /**
   * Keep the reader's place with the conversation that is left. What is typed in it is kept already.
   */
  #leave() {
    const { conversation, queue, place } = this.page;
    // The browser's own address may be that of the next one already.
    place.store(addressOf(conversation.sessionId, conversation.branch.chosen));
    queue.leave();
  }
}

/** Have a visitor come back to this conversation after signing up or in. */
export function aimVisitor() {
  for (const link of all(document, "a.sign-in")) {
    Object.assign(link, { search: new URLSearchParams({ next: addressIn(location) }) });
  }
}

/** The place in the browser's history; not a number where the browser does not say it. */
function indexOfPage() {
  return window.navigation?.currentEntry?.index ?? Number.NaN;
}

/** @param {HTMLAnchorElement | Location} at */
function addressIn({ pathname, search }) {
  return pathname + search;
}
