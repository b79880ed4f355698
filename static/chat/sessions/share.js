/** The dialog that creates, copies and revokes share links. */

import { apiOf, ask } from "../page/api.js";
import { copyText, showCopied } from "../page/clipboard.js";
import { closest, focusLost, fromTemplate, within } from "../page/elements.js";
import { data, fill, language, words } from "../page/words.js";

export class ShareDialog {
  id = "";
  #madeId = "";
  /** The number of the pending request for the list; 0 if none is pending. */
  #asked = 0;
  #questions = 0;

  /** @param {HTMLDialogElement} dialog */
  constructor(dialog) {
    this.dialog = dialog;
    this.list = within(dialog, "ul");
    this.status = within(dialog, ".share-status");
    this.made = within(dialog, ".share-made");
    this.link = within(this.made, "input");
    this.make = within(dialog, ".share-make");
    this.copy = within(this.made, "button");
    this.make.addEventListener("click", () => this.#make());
    this.copy.addEventListener("click", () => this.#copy());
    this.list.addEventListener("click", (event) => this.#press(event));
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("close", focusLost);
  }

  /** @param {ChosenSession} at */
  open({ id }) {
    this.id = id;
    this.made.hidden = true;
    this.list.replaceChildren();
    this.dialog.showModal();
    this.make.focus();
    this.#show();
  }

  /**
   * Show a link that was created or revoked in any tab.
   * @param {string} session_id
   * @param {Metadata<"share.created" | "share.revoked">} at
   */
  apply(session_id, at) {
    if (!this.dialog.open || session_id !== this.id) return;
    if (at.event === "share.created") this.#add({ id: at.share_id, created_at: at.created_at });
    else this.#remove(at.share_id);
    if (this.#asked) this.#show();
  }

  /** @param {Share} share */
  #add(share) {
    if (!this.#find(share.id)) this.list.prepend(lineOf(share));
  }

  /** @param {string} id */
  #remove(id) {
    const line = this.#find(id);
    const hadFocus = line?.contains(document.activeElement);
    line?.remove();
    if (id === this.#madeId) this.made.hidden = true;
    if (hadFocus) this.make.focus();
  }

  /**
   * @param {string} id
   * @returns {HTMLElement | null}
   */
  #find(id) {
    return this.list.querySelector(`[data-share-id="${id}"]`);
  }

  /**
   * Send a request and show its answer, unless the dialog is about another conversation by then.
   * @param {{ method?: string }} request
   * @param {(answer: any) => void} show
   * @param {string} [rest]
   */
  async #ask(request, show, rest = "") {
    const { id } = this;
    this.status.textContent = "";
    try {
      const answer = await ask(apiOf(id, `shares/${rest}`), request);
      if (id === this.id) show(answer);
    } catch {
      if (id === this.id) this.status.textContent = words.share.failed;
    }
  }

  /**
   * Load the list. Only the latest of several answers is shown: earlier ones may lack newer
   * changes.
   */
  #show() {
    this.#questions += 1;
    const asked = this.#questions;
    this.#asked = asked;
    this.#ask({}, ({ results }) => {
      if (asked !== this.#asked) return;
      this.#asked = 0;
      this.list.replaceChildren(...results.map(lineOf));
    });
  }

  /** Create a link. The server does not keep its secret: it can be copied only now. */
  #make() {
    // The page's own address names the branch that is shown.
    const branch = location.pathname.includes(this.id) ? location.search : "";
    /** @param {Share & { token: string }} share */
    const show = (share) => {
      this.link.value = location.origin + data.urls.shared.replace("TOKEN", share.token);
      this.made.hidden = false;
      this.link.focus();
      this.link.select();
      this.link.scrollLeft = 0;
      this.#add(share);
      this.#madeId = share.id;
      if (this.#asked) this.#show();
    };
    this.#ask({ method: "POST" }, show, branch);
  }

  async #copy() {
    showCopied(this.copy, await copyText(this.link.value));
    this.status.textContent = this.copy.textContent;
  }

  /** @param {Event} event */
  #press(event) {
    const line = closest(event, "button")?.closest("li");
    if (line) this.#revoke(line.dataset.shareId ?? "");
  }

  /** @param {string} shareId */
  #revoke(shareId) {
    const show = () => {
      this.#remove(shareId);
      this.make.focus();
      this.status.textContent = words.share.revoked;
    };
    this.#ask({ method: "DELETE" }, show, `${shareId}/`);
  }
}

/** @param {Share} at */
function lineOf({ id, created_at }) {
  const line = fromTemplate("share-template");
  const date = new Date(created_at).toLocaleString(language, {
    dateStyle: "medium",
    timeStyle: "short",
  });
  line.dataset.shareId = id;
  within(line, "span").textContent = fill(words.share.made, { date });
  return line;
}
