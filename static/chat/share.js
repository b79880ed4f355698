/** Links under which anybody reads a conversation: made, copied and revoked. */

import { apiOf, ask } from "./api.js";
import { copyText, showCopied } from "./clipboard.js";
import { fromTemplate } from "./elements.js";
import { data, fill, words } from "./words.js";

export class ShareDialog {
  constructor(dialog) {
    this.dialog = dialog;
    this.list = dialog.querySelector("ul");
    this.status = dialog.querySelector(".share-status");
    this.made = dialog.querySelector(".share-made");
    this.link = this.made.querySelector("input");
    this.make = dialog.querySelector(".share-make");
    this.make.addEventListener("click", () => this.#make());
    this.made.querySelector("button").addEventListener("click", (event) => this.#copy(event));
    this.list.addEventListener("click", (event) => this.#press(event));
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("close", () => this.#leave());
  }

  open({ id }) {
    this.id = id;
    this.made.hidden = true;
    this.list.replaceChildren();
    this.dialog.showModal();
    this.make.focus();
    this.#show();
  }

  /** Show what was made or revoked in any tab. */
  apply({ session_id, metadata: { event, share_id, created_at } }) {
    if (!this.dialog.open || session_id !== this.id) return;
    if (event === "share.created") this.#add({ id: share_id, created_at });
    else this.#remove(share_id);
    if (this.asked) this.#show();
  }

  #add(share) {
    if (!this.#find(share.id)) this.list.prepend(lineOf(share));
  }

  #remove(id) {
    const line = this.#find(id);
    const hadFocus = line?.contains(document.activeElement);
    line?.remove();
    if (id === this.madeId) this.made.hidden = true;
    if (hadFocus) this.make.focus();
  }

  #find(id) {
    return this.list.querySelector(`[data-share-id="${id}"]`);
  }

  /** Have the answer shown, unless the dialog is about another conversation by then. */
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

  /** Of several answers the one that was asked for last counts: others may miss what came since. */
  #show() {
    const asked = (this.asked = {});
    this.#ask({}, ({ results }) => {
      if (asked !== this.asked) return;
      this.asked = undefined;
      this.list.replaceChildren(...results.map(lineOf));
    });
  }

  /** The server does not keep a link's secret: what is not copied now is lost. */
  #make() {
    // The page's own address says which branch is looked at.
    const branch = location.pathname.includes(this.id) ? location.search : "";
    const show = (share) => {
      this.link.value = location.origin + data.urls.shared.replace("TOKEN", share.token);
      this.made.hidden = false;
      this.link.focus();
      this.link.select();
      this.link.scrollLeft = 0;
      this.#add(share);
      this.madeId = share.id;
      if (this.asked) this.#show();
    };
    this.#ask({ method: "POST" }, show, branch);
  }

  async #copy({ currentTarget: button }) {
    showCopied(button, await copyText(this.link.value));
    this.status.textContent = button.textContent;
  }

  #press(event) {
    const line = event.target.closest("button")?.closest("li");
    if (line) this.#revoke(line.dataset.shareId);
  }

  #revoke(shareId) {
    const show = () => {
      this.#remove(shareId);
      this.make.focus();
      this.status.textContent = words.share.revoked;
    };
    this.#ask({ method: "DELETE" }, show, `${shareId}/`);
  }

  /** The drawer that it was opened from has gone. */
  #leave() {
    const isLost = document.activeElement === document.body;
    if (isLost) document.querySelector(".topbar [data-drawer]").focus();
  }
}

function lineOf({ id, created_at }) {
  const line = fromTemplate("share-template");
  const date = new Date(created_at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  line.dataset.shareId = id;
  line.querySelector("span").textContent = fill(words.share.made, { date });
  return line;
}
