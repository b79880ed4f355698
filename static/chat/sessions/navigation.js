/**
 * Opens conversations without loading the page: what the page shows is replaced, and the socket
 * stays open. Without a socket, links and the browser's buttons load pages.
 */

import { addVerdicts } from "../log/feedback.js";
import { keepTyped, showTyped } from "../log/typed.js";
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
  #timer = 0;

  /**
   * @param {{ connection: Connection, conversation: Conversation, history: PageHistory,
   *   sender: Sender, picker: AgentPicker, draft: Draft, composer: Composer, queue: Queue, manager: SessionManager,
   *   title: PageTitle, place: ReadingPlace, announce: Announce }} page
   */
  constructor(page) {
    this.page = page;
    document.addEventListener("click", (event) => this.#press(event));
    addEventListener("popstate", () => this.#return());
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
    // A link within the page, such as one to the messages.
    if (address === this.#shown || address === addressOf(sessionId, branch.chosen)) return;
    if (this.#isAble(location))
      this.#open(
        location.href,
        () => {},
        () => location.reload(),
      );
    else location.reload();
  }

  /**
   * Load a conversation and show it, if nothing else is asked for meanwhile. `enter` puts its
   * address into the browser's history; `leave` is called if nothing could be loaded.
   * @param {string} address
   * @param {() => void} enter
   */
  async #open(address, enter, leave = () => this.#tell(words.manage.failed)) {
    clearTimeout(this.#timer);
    const timer = setTimeout(() => this.#tell(words.loading), PATIENCE_MS);
    this.#timer = timer;
    try {
      const loaded = await this.page.history.load(address);
      if (loaded?.data.user === data.user) this.#show(loaded, enter);
      else if (loaded) location.assign(address);
    } catch (error) {
      // The server says more of it than this page could.
      if (error instanceof Refused) location.assign(address);
      else leave();
    }
    if (timer === this.#timer) this.#rest();
  }

  /**
   * Escape stays in the conversation that is shown while another one loads.
   * @param {KeyboardEvent} event
   */
  press(event) {
    if (event.key !== "Escape" || !this.#timer) return false;
    this.page.history.stay();
    this.#rest();
    // The browser may have gone back or forward already.
    const { sessionId, branch } = this.page.conversation;
    const shown = sessionId ? addressOf(sessionId, branch.chosen) : this.#shown;
    if (addressIn(location) !== shown) history.replaceState(null, "", shown);
    return true;
  }

  /** @param {string} text */
  #tell(text) {
    this.page.manager.toast.show(text);
  }

  /** Nothing is loading any more. */
  #rest() {
    const { toast } = this.page.manager;
    clearTimeout(this.#timer);
    this.#timer = 0;
    if (toast.text.textContent === words.loading) toast.hide();
  }

  /**
   * @param {LoadedPage} loaded
   * @param {() => void} enter
   */
  #show(loaded, enter) {
    const { history, sender, picker, draft, composer, manager, title, place, announce } = this.page;
    this.#leave();
    enter();
    this.#shown = addressIn(location);
    renewData(loaded.data);
    addVerdicts(loaded.data);
    const welcome = loaded.page.getElementById("welcome");
    byId("welcome").replaceChildren(...(welcome?.childNodes ?? []));
    title.rename(loaded.page.getElementById("title")?.textContent ?? "");
    history.open(loaded);
    showTyped();
    aimVisitor();
    sender.open();
    picker.choose(loaded.data.agent.name);
    draft.open();
    manager.open(loaded.data);
    announce(byId("title").textContent);
    composer.focus();
    place.restore();
  }

  /** Keep what is typed, and the reader's place, with the conversation that is left. */
  #leave() {
    const { conversation, queue, draft, place } = this.page;
    // The browser's own address may be that of the next one already.
    place.store(addressOf(conversation.sessionId, conversation.branch.chosen));
    keepTyped();
    queue.show([]);
    draft.store();
  }
}

/** Have a visitor come back to this conversation after signing up or in. */
export function aimVisitor() {
  for (const link of all(document, "a.sign-in")) {
    Object.assign(link, { search: new URLSearchParams({ next: addressIn(location) }) });
  }
}

/** @param {HTMLAnchorElement | Location} at */
function addressIn({ pathname, search }) {
  return pathname + search;
}
