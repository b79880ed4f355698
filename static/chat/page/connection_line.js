/** The line under the header that is shown only while something is wrong with the connection. */

import { count, fill, words } from "./words.js";

const PATIENCE_MS = 1_500;
const LASTING = new Set(["signed_out", "refused", "offline"]);

export class ConnectionLine {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #showing;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #ticking;
  #told = "";
  #isAtRisk = false;

  /**
   * @param {{ line: HTMLElement, text: HTMLElement, retry: HTMLElement, signIn: HTMLAnchorElement }} elements
   * @param {{ connection: Connection, outbox: Outbox, announce: Announce }} page
   */
  constructor({ line, text, retry, signIn }, { connection, outbox, announce }) {
    this.line = line;
    this.text = text;
    this.retry = retry;
    this.signIn = signIn;
    this.connection = connection;
    this.outbox = outbox;
    this.announce = announce;
    retry.textContent = words.connection.retry;
    retry.addEventListener("click", () => connection.wake());
    connection.addEventListener("state", () => this.#follow());
  }

  #follow() {
    clearInterval(this.#ticking);
    const { state } = this.connection;
    this.line.dataset.state = state;
    if (state === "open" || state === "idle") {
      clearTimeout(this.#showing);
      this.#showing = undefined;
      this.line.hidden = true;
      return;
    }
    this.#ticking = setInterval(() => this.#write(), 500);
    if (LASTING.has(state)) this.#show();
    else this.#showing ??= setTimeout(() => this.#show(), PATIENCE_MS);
    this.#write();
  }

  #show() {
    const { state } = this.connection;
    const isNews = this.line.hidden || state !== this.#told;
    this.line.hidden = false;
    this.#write();
    this.#told = state;
    if (isNews) this.announce(this.text.textContent);
  }

  #write() {
    const { state, retryAt } = this.connection;
    const seconds = Math.max(1, Math.ceil((retryAt - Date.now()) / 1_000));
    const { unsent_one: one, unsent: many, unstored, ...texts } = words.connection;
    const { length } = this.outbox.unsent;
    const { isAtRisk } = this.outbox;
    const waiting = length ? count(one, many, length) : "";
    const parts = [fill(texts[state] ?? "", { seconds }), waiting, isAtRisk ? unstored : ""];
    const said = parts.filter(Boolean).join(" ");
    if (this.text.textContent !== said) this.text.textContent = said;
    if (isAtRisk && !this.#isAtRisk) this.announce(said);
    this.#isAtRisk = isAtRisk;
    this.retry.hidden = state !== "waiting" && state !== "offline";
    this.signIn.hidden = state !== "signed_out";
    this.signIn.search = String(new URLSearchParams({ next: location.pathname + location.search }));
    this.line.className = `connection ${LASTING.has(state) ? "bad" : "warn"}`;
  }
}
