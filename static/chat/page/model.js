/**
 * The status of the embedded model: the panel above the conversation, and the text of replies that
 * wait.
 */

import { byId, within } from "./elements.js";
import { data, fill, words } from "./words.js";

const ASK_MS = 2_000;
/** @type {Set<string>} */
const LASTING = new Set(["ready", "failed"]);

let status = data.model;

/**
 * The text of a reply that waits for the model; empty if it does not wait for it.
 * @param {Message} at
 */
export function waitingText({ run_status, agent }) {
  const isHeld = run_status === "queued" && agent !== data.scripted_agent;
  if (!isHeld || !status || LASTING.has(status.state)) return "";
  return fill(words.states.model, { detail: status.detail });
}

export class ModelPanel {
  /**
   * @param {HTMLElement} panel
   * @param {{ connection: Connection, announce: Announce }} page
   */
  constructor(panel, { connection, announce }) {
    this.panel = panel;
    this.detail = byId("model-detail");
    this.progress = within(panel, "progress");
    this.connection = connection;
    this.announce = announce;
    connection.addEventListener("frame", ({ detail: { type, metadata } }) => {
      if (type === "status" && metadata.event === "model.status") this.#show(metadata);
    });
    this.#ask();
  }

  /** @param {ModelStatus} told */
  #show(told) {
    const isNews = told.state !== status?.state;
    status = told;
    this.panel.dataset.state = told.state;
    this.panel.hidden = told.state === "ready";
    this.detail.textContent = told.detail;
    if (told.fraction === undefined) this.progress.removeAttribute("value");
    else this.progress.value = told.fraction;
    if (isNews) this.announce(told.detail);
  }

  /** Poll for the status: a visitor who has not written yet has no socket. */
  async #ask() {
    if (this.connection.state === "open" || LASTING.has(status?.state ?? "")) return;
    setTimeout(() => this.#ask(), ASK_MS);
    if (this.connection.state !== "idle" || document.visibilityState !== "visible") return;
    try {
      const answer = await fetch(data.urls.model);
      const { fraction, ...told } = await answer.json();
      this.#show(fraction === null ? told : { ...told, fraction });
    } catch {
      // Try again next time.
    }
  }
}
