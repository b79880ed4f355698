/**
 * The messages of a session that the server has stored, and the revision (`rev`) up to which they
 * are complete.
 */

import { Branch, isActive } from "./branch.js";
import { agentOf } from "./parts.js";

export class StoredMessages {
  /** Replies that were withdrawn from the queue; the terminal frames of their runs still arrive. */
  #withdrawn = new Set();

  /** @param {PageData} data */
  constructor({ rev, messages, siblings, branch }) {
    this.branch = new Branch(messages, siblings, branch);
    this.rev = rev;
    this.lastRev = rev;
  }

  /** @param {string | null | undefined} id */
  get(id) {
    return this.branch.get(id);
  }

  /** The id of the last message that is shown. */
  get lastId() {
    return this.branch.last?.message_id ?? null;
  }

  /** @param {string} id */
  isWithdrawn(id) {
    return this.#withdrawn.has(id);
  }

  /**
   * The frames of one revision may arrive apart: it is complete only when a later one arrives.
   * @param {number} rev
   */
  noteRev(rev) {
    if (rev <= this.lastRev) return;
    this.rev = this.lastRev;
    this.lastRev = rev;
  }

  /**
   * Continue from a rendered page.
   * @param {number} rev
   */
  restartAt(rev) {
    this.rev = this.lastRev = rev;
  }

  /**
   * Store the message of a `message.created` or `message.updated`.
   * @param {StoredMessage} message
   */
  store(message) {
    this.noteRev(message.rev);
    if (message.withdrawn) return this.#withdraw(message.message_id);
    const held = this.get(message.message_id);
    const hasParts = message.role === "user" || message.parts !== undefined;
    const { event, rev, ...fields } = message;
    if (hasParts && !isActive(message)) {
      this.change(message.message_id, { ...fields, state: "" });
    } else if (!held || isActive(held)) {
      this.#storeWithoutParts(fields, hasParts);
    } else if (message.summary !== undefined) {
      this.change(message.message_id, { summary: message.summary });
    }
  }

  /** @param {string} id */
  #withdraw(id) {
    this.#withdrawn.add(id);
    this.branch.delete(id);
  }

  /**
   * Store a message but keep the parts that are shown: they come from the frames of its run, and so
   * does its end if `hasParts` is false.
   * @param {Message} message
   * @param {boolean} hasParts
   */
  #storeWithoutParts(message, hasParts) {
    const held = this.get(message.message_id);
    const run_status = hasParts ? message.run_status : (held?.run_status ?? "running");
    const shown = held?.parts ?? [];
    const agent = agentOf(shown) ?? message.agent;
    this.change(message.message_id, { ...message, run_status, agent, parts: shown, state: "" });
  }

  /**
   * Change some fields of a message, or add it; returns the message.
   * @param {string} id
   * @param {Partial<Message>} fields
   * @returns {Message}
   */
  change(id, fields) {
    const held = this.get(id);
    const version = (held?.version ?? 0) + 1;
    const message = { ...held, ...fields, message_id: id, version };
    this.branch.set(message);
    return message;
  }

  /**
   * Replace the parts by others that do not continue the shown ones, so the view starts anew.
   * @param {string} id
   * @param {Part[]} parts
   * @param {Partial<Message>} fields
   */
  startOver(id, parts, fields) {
    const generation = (this.get(id)?.generation ?? 0) + 1;
    this.change(id, { ...fields, parts, generation });
  }

  /**
   * Add a message that the server has not sent yet, after all others.
   * @param {string} id
   * @param {Partial<Message>} fields
   */
  addLast(id, fields) {
    return this.change(id, { ...fields, number: this.branch.nextNumber });
  }

  /**
   * Add an empty reply after all others.
   * @param {string} id
   * @param {string | null} parent_message_id
   * @param {string} run_id
   */
  addReply(id, parent_message_id, run_id) {
    const fields = { role: /** @type {const} */ ("assistant"), run_status: "queued", parts: [] };
    return this.addLast(id, { ...fields, parent_message_id, run_id });
  }
}
