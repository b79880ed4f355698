/** Brings the page in line with the conversation, at most once per animation frame. */

import { count, words } from "./words.js";

export class ChatScreen {
  #isDrawing = false;
  /** @type {number | undefined} */
  #queued;
  #session = "";

  /**
   * @param {{ conversation: Conversation, transcript: Transcript, composer: Composer,
   *   queue: Queue, title: PageTitle, approvals: Approvals, isConnected: () => boolean }} page
   */
  constructor({ conversation, transcript, composer, queue, title, approvals, isConnected }) {
    this.conversation = conversation;
    this.transcript = transcript;
    this.composer = composer;
    this.queue = queue;
    this.title = title;
    this.approvals = approvals;
    this.isConnected = isConnected;
    // A requested animation frame does not fire once the page is hidden.
    document.addEventListener("visibilitychange", () => this.draw(true));
  }

  /**
   * Draw with the next animation frame, or soon if the page is hidden; `isAnew` requests it again
   * even if a draw is pending.
   */
  draw(isAnew = false) {
    if (this.#isDrawing && !isAnew) return;
    this.#isDrawing = true;
    const draw = () => this.#draw();
    if (document.visibilityState === "visible") requestAnimationFrame(draw);
    else setTimeout(draw);
  }

  #draw() {
    const { conversation } = this;
    this.#isDrawing = false;
    this.transcript.sync(conversation, this.isConnected());
    this.composer.setBusy(conversation.isBusy);
    this.#tellQueue(conversation.queue.length);
    this.queue.show(conversation.queue);
    this.title.setBusy(conversation.isBusy);
    this.approvals.show();
  }

  /** @param {number} length */
  #tellQueue(length) {
    // The composer has cleared the hint about the conversation before.
    if (this.conversation.sessionId !== this.#session) this.#queued = 0;
    this.#session = this.conversation.sessionId;
    if (length === this.#queued) return;
    this.#queued = length;
    const { queued_one: one, queued: many } = words.composer;
    this.composer.setHint(length ? count(one, many, length) : "");
  }
}
