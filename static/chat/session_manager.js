/** Puts together what people do with their conversations: find, rename, share, delete, judge. */

import { apiOf, ask } from "./api.js";
import { Feedback } from "./feedback.js";
import { askTitle } from "./inline_rename.js";
import { SessionActions } from "./session_actions.js";
import { SessionMenu } from "./session_menu.js";
import { SessionSearch } from "./session_search.js";
import { Toast } from "./toast.js";
import { data, words } from "./words.js";

const find = (id) => document.getElementById(id);

export class SessionManager {
  constructor({ sessions, connection, announce, getCurrent }) {
    Object.assign(this, { sessions, getCurrent });
    this.isArchived = data.archived;
    this.drawer = find("sessions");
    this.toast = new Toast({ element: find("toast"), drawer: this.drawer, announce });
    this.feedback = new Feedback({ getCurrent, toast: this.toast, announce });
    this.actions = new SessionActions(this.toast);
    this.menu = new SessionMenu(find("session-menu"), (button) => this.#describe(button));
    this.menu.addEventListener("choose", ({ detail }) => this.#choose(detail));
    this.search = this.#makeSearch();
    // Beside the conversation it would cover that.
    matchMedia("(min-width: 60rem)").addEventListener("change", () => this.drawer.hidePopover());
    this.drawer.addEventListener("scroll", () => this.menu.hide(), true);
    find("restore").addEventListener("click", () => this.actions.restore(this.getCurrent()));
    connection.addEventListener("frame", ({ detail }) => this.#follow(detail));
    connection.addEventListener("state", () => this.#greet(connection));
    if (data.user) this.#offer();
  }

  #makeSearch() {
    return new SessionSearch({
      field: find("session-search"),
      archive: find("session-archive"),
      status: find("session-status"),
      found: find("session-found"),
      more: find("session-more"),
      list: this.sessions,
    });
  }

  /** There is something to find, or may be. */
  #offer() {
    for (const element of document.querySelectorAll("[data-with-sessions]")) element.hidden = false;
    find("session-actions").hidden = !this.getCurrent();
  }

  #greet(connection) {
    if (connection.state !== "open") return;
    if (this.hasMissed) this.#catchUp(connection);
    this.hasMissed = true;
  }

  async #catchUp(connection) {
    try {
      await this.#renewList(connection);
      const id = this.getCurrent();
      if (id) this.feedback.renew((await ask(apiOf(id, "feedback/"))).results);
    } catch {
      // It is as it was, until the next connection.
    }
  }

  /** What no socket was there to hear of the newest lines is told as if it came now. */
  async #renewList(connection) {
    const tell = (session_id, metadata) => {
      const detail = { type: "status", session_id, metadata };
      connection.dispatchEvent(new CustomEvent("frame", { detail }));
    };
    const { results, next } = await ask(`${data.urls.sessions}?state=all`);
    for (const id of this.sessions.missingIn(results, next)) tell(id, { event: "session.deleted" });
    for (const { id, archived_at, ...session } of results) {
      tell(id, { event: "session.updated", archived: Boolean(archived_at), ...session });
    }
  }

  #follow(frame) {
    const { session_id, metadata } = frame;
    const [subject] = (metadata?.event ?? "").split(".");
    if (subject === "feedback") this.feedback.follow(metadata);
    if (subject === "share") this.share?.apply(frame);
    if (subject !== "session") return;
    this.#offer();
    this.search.refresh();
    if (session_id !== this.getCurrent()) return;
    this.isArchived = metadata.archived;
    this.#tellDeleted(metadata.event === "session.deleted");
  }

  /** Nothing is said in a conversation that is not there; the page waits for its return. */
  #tellDeleted(isDeleted) {
    if (find("deleted").hidden && !isDeleted) return;
    find("deleted").hidden = !isDeleted;
    find("composer").inert = isDeleted;
    find("session-actions").hidden = isDeleted;
    // What it missed meanwhile the server renders.
    if (!isDeleted) location.reload();
  }

  #describe(button) {
    const line = button.closest("li");
    if (!line) {
      const title = find("title").textContent;
      return { id: this.getCurrent(), title, archived: this.isArchived };
    }
    return {
      id: line.dataset.sessionId,
      title: line.querySelector(".session-title").textContent,
      archived: line.hasAttribute("data-archived"),
      onLeave: leaver(line),
    };
  }

  #choose({ button, action }) {
    const session = this.#describe(button);
    switch (action) {
      case "rename":
        return this.#rename(button, session);
      case "archive":
        return this.actions.archive(session, true);
      case "unarchive":
        return this.actions.archive(session, false);
      case "share":
        return this.#share(session);
      case "delete":
        return this.actions.delete(session);
    }
  }

  /** Its code comes when it is wanted first. */
  async #share(session) {
    try {
      const { ShareDialog } = await import("./share.js");
      this.share ??= new ShareDialog(find("share"));
      this.share.open(session);
    } catch {
      this.toast.show(words.manage.failed);
    }
  }

  #rename(button, session) {
    const shown = button.closest("li")?.firstElementChild ?? find("title");
    askTitle(shown, session.title, {
      save: (title) => this.actions.rename(session, title),
      leave: () => button.focus(),
    });
  }
}

/** Where the keyboard goes once the line is gone: to the one that took its place. */
function leaver(line) {
  const { parentNode: list, nextElementSibling: next, previousElementSibling: previous } = line;
  return () => {
    const neighbour = [line, next, previous].find((near) => near?.parentNode === list);
    (neighbour?.firstElementChild ?? find("new-chat")).focus();
  };
}
