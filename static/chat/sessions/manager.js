/** Manages conversations: connects the list, search, menu, renaming, sharing and feedback. */

import { Feedback } from "../log/feedback.js";
import { ask } from "../page/api.js";
import { all, byId, within } from "../page/elements.js";
import { Toast } from "../page/toast.js";
import { data, words } from "../page/words.js";
import { SessionActions } from "./actions.js";
import { leaver, linkOf } from "./list.js";
import { SessionMenu } from "./menu.js";
import { askTitle } from "./rename.js";
import { SessionSearch } from "./search.js";

export class SessionManager {
  /** Sessions that frames have told of since the list was last asked for. */
  #news = /** @type {Set<string>} */ (new Set());
  /** @type {ShareDialog | undefined} */
  #share;
  /** @type {import("./export.js").ExportDialog | undefined} */
  #export;

  /**
   * @param {{ sessions: SessionList, connection: Connection, title: PageTitle,
   *   announce: Announce, getCurrent: () => string, kept: KeptTexts }} page
   */
  constructor({ sessions, connection, title, announce, getCurrent, kept }) {
    this.sessions = sessions;
    this.title = title;
    this.getCurrent = getCurrent;
    this.drawer = byId("sessions");
    this.toast = new Toast({ element: byId("toast"), drawer: this.drawer, announce });
    this.feedback = new Feedback({ getCurrent, toast: this.toast, announce, kept });
    this.actions = new SessionActions(this.toast);
    this.menu = new SessionMenu(byId("session-menu"), (button) => this.#describe(button));
    this.menu.addEventListener("choose", ({ detail }) => this.#choose(detail));
    this.search = this.#makeSearch();
    // Beside the conversation the drawer would cover it.
    matchMedia("(min-width: 60rem)").addEventListener("change", () => this.drawer.hidePopover());
    this.drawer.addEventListener("scroll", () => this.menu.hide(), true);
    byId("restore").addEventListener("click", () => this.actions.restore(this.getCurrent()));
    connection.addEventListener("frame", ({ detail }) => this.#receive(detail));
    connection.addEventListener("state", () => this.#greet(connection));
    if (data.user) this.#offer();
  }

  #makeSearch() {
    return new SessionSearch({
      field: within(document, "input[id=session-search]"),
      archive: byId("session-archive"),
      status: byId("session-status"),
      found: byId("session-found"),
      more: byId("session-more"),
      list: this.sessions,
    });
  }

  /** Show the controls that find and manage conversations. */
  #offer() {
    for (const element of all(document, "[data-with-sessions]")) element.hidden = false;
    byId("session-actions").hidden = !this.getCurrent();
  }

  /** Another conversation is shown. */
  open() {
    this.#close();
    byId("deleted").hidden = true;
    byId("composer").inert = false;
    if (this.drawer.matches(":popover-open")) this.drawer.hidePopover();
    this.sessions.mark();
    this.search.mark();
    this.#offer();
  }

  /** Close what is about the conversation that was shown; a new title is saved. */
  #close() {
    this.menu.hide();
    this.#share?.dialog.close();
    this.#export?.dialog.close();
    if (byId("title").hidden) byId("title").parentElement?.querySelector("input")?.blur();
  }

  /** @param {Connection} connection */
  #greet(connection) {
    if (connection.state === "open") this.#catchUp();
  }

  /** Apply what has changed since the page was rendered, or since there was a socket. */
  async #catchUp() {
    try {
      await this.#renewList();
      const id = this.getCurrent();
      if (id) await this.feedback.renew(id);
    } catch {
      // Keep the list as it is until the next connection.
    }
  }

  /** Load the newest lines; frames that arrive meanwhile are newer. */
  async #renewList() {
    this.#news.clear();
    /** @type {{ results: SessionRow[], next: string | null }} */
    const { results, next } = await ask(`${data.urls.sessions}?state=all`);
    const news = new Set(this.#news);
    for (const id of this.sessions.missingIn(results, next)) {
      if (news.has(id)) continue;
      this.#follow(id, { event: "session.deleted", title: "", active_at: "" });
    }
    for (const { id, archived_at, ...session } of results) {
      if (news.has(id)) continue;
      this.#follow(id, { event: "session.updated", ...session, archived: Boolean(archived_at) });
    }
  }

  /** @param {ServerFrame} frame */
  #receive({ type, session_id = "", metadata: at }) {
    if (type !== "status") return;
    switch (at.event) {
      case "feedback.changed":
        return this.feedback.follow(at);
      case "share.created":
      case "share.revoked":
        return this.#share?.apply(session_id, at);
      case "session.created":
      case "session.updated":
      case "session.deleted":
      case "session.activity":
        this.#news.add(session_id);
        return this.#follow(session_id, at);
    }
  }

  /**
   * Show a change of a session.
   * @param {string} session_id
   * @param {SessionEvent} at
   */
  #follow(session_id, at) {
    const isCurrent = session_id === this.getCurrent();
    this.sessions.apply(session_id, at);
    if (isCurrent && at.title) this.title.rename(at.title);
    this.#offer();
    this.search.refresh();
    if (!isCurrent) return;
    data.archived = Boolean(at.archived);
    data.pinned = Boolean(at.pinned);
    this.#tellDeleted(at.event === "session.deleted");
  }

  /**
   * A deleted conversation accepts no messages; the page waits for it to be restored.
   * @param {boolean} isDeleted
   */
  #tellDeleted(isDeleted) {
    if (byId("deleted").hidden && !isDeleted) return;
    byId("deleted").hidden = !isDeleted;
    byId("composer").inert = isDeleted;
    byId("session-actions").hidden = isDeleted;
    // The server renders what was missed meanwhile.
    if (!isDeleted) location.reload();
  }

  /**
   * The session that the button of a menu belongs to.
   * @param {HTMLElement} button
   * @returns {ChosenSession}
   */
  #describe(button) {
    const line = button.closest("li");
    if (!line) {
      const title = byId("title").textContent;
      const { archived, pinned } = data;
      return { id: this.getCurrent(), title, archived, pinned };
    }
    return {
      id: line.dataset.sessionId ?? "",
      title: within(line, ".session-title").textContent,
      archived: line.hasAttribute("data-archived"),
      pinned: line.hasAttribute("data-pinned"),
      onLeave: leaver(line),
    };
  }

  /** @param {{ button: HTMLElement, action: string }} chosen */
  #choose({ button, action }) {
    const session = this.#describe(button);
    switch (action) {
      case "rename":
        return this.#rename(button, session);
      case "pin":
      case "unpin":
        return this.actions.pin(session, action === "pin");
      case "archive":
        return this.actions.archive(session, true);
      case "unarchive":
        return this.actions.archive(session, false);
      case "export":
        return this.#openDialog(session, this.#loadExport());
      case "share":
        return this.#openDialog(session, this.#loadShare());
      case "delete":
        return this.actions.delete(session);
    }
  }

  /**
   * Whether a session is still the one shown, or was chosen from the list.
   * @param {ChosenSession} session
   */
  #isMeant({ id, onLeave }) {
    return Boolean(onLeave) || id === this.getCurrent();
  }

  /**
   * Open a dialog, whose code is loaded on first use.
   * @param {ChosenSession} session
   * @param {Promise<{ open: (session: ChosenSession) => void }>} loading
   */
  async #openDialog(session, loading) {
    try {
      const dialog = await loading;
      if (this.#isMeant(session)) dialog.open(session);
    } catch {
      this.toast.show(words.manage.failed);
    }
  }

  async #loadShare() {
    const { ShareDialog } = await import("./share.js");
    this.#share ??= new ShareDialog(within(document, "dialog[id=share]"));
    return this.#share;
  }

  async #loadExport() {
    const { ExportDialog } = await import("./export.js");
    this.#export ??= new ExportDialog(within(document, "dialog[id=export]"));
    return this.#export;
  }

  /**
   * A title that the server refuses stays in the field.
   * @param {HTMLElement} button
   * @param {ChosenSession} session
   * @param {string} [typed]
   */
  #rename(button, session, typed) {
    const isCurrent = session.id === this.getCurrent();
    const line = button.closest("li") ?? (isCurrent ? null : this.sessions.find(session.id));
    const shown = line ? linkOf(line) : byId("title");
    if (!shown.isConnected || shown.hidden || (!line && !isCurrent)) return;
    askTitle(shown, session.title, {
      save: async (title) => {
        const isSaved = await this.actions.rename(session.id, title);
        if (!isSaved) this.#rename(button, session, title);
      },
      leave: () => button.focus(),
      typed,
    });
  }
}
