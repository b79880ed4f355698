/** Messages that were typed on this page and that the server has not stored yet. */

export class UnsentMessages {
  /** @type {Map<string, { prompt: Message | null, reply: Message | null }>} */
  #held = new Map();

  #unwanted;

  /** @param {Set<string>} [unwanted] messages that were stopped before they were accepted */
  constructor(unwanted = new Set()) {
    this.#unwanted = unwanted;
  }

  /** No messages, but the same knowledge of those that were stopped: they may be of any session. */
  renew() {
    return new UnsentMessages(this.#unwanted);
  }

  get size() {
    return this.#held.size;
  }

  /** @param {string} client_message_id */
  has(client_message_id) {
    return this.#held.has(client_message_id);
  }

  /**
   * The message as it was typed; null if only another reply was requested.
   * @param {string} client_message_id
   */
  promptOf(client_message_id) {
    return this.#held.get(client_message_id)?.prompt;
  }

  /**
   * Show an entry of the outbox. With `regenerate` or `parent_message_id` it replaces the messages
   * after that one.
   * @param {OutboxEntry} entry
   * @param {string | null} [answered] the message answered again by `regenerate`
   */
  add({ client_message_id, content, regenerate, parent_message_id, agent, refused }, answered) {
    const prompt = regenerate ? null : newPrompt(client_message_id, content, parent_message_id);
    const parent = prompt ? prompt.message_id : answered;
    this.#held.set(client_message_id, {
      prompt,
      reply: newReply(client_message_id, parent, agent),
    });
    if (refused) this.refuse(client_message_id, refused);
  }

  /**
   * Remove a message; returns whether it was there.
   * @param {string | undefined} client_message_id
   */
  delete(client_message_id) {
    return this.#held.delete(client_message_id ?? "");
  }

  /**
   * Show why a message was refused; a request for another reply is removed.
   * @param {string} client_message_id
   * @param {string} note
   */
  refuse(client_message_id, note) {
    this.#unwanted.delete(client_message_id);
    const prompt = this.promptOf(client_message_id);
    if (prompt) {
      const version = (prompt.version ?? 0) + 1;
      const refused = { ...prompt, state: "refused", note, version };
      this.#held.set(client_message_id, { prompt: refused, reply: null });
    } else {
      this.#held.delete(client_message_id);
    }
  }

  /**
   * Stop the reply as soon as it is accepted: the chat may have reached the server already.
   * @param {string} client_message_id
   */
  stopOnceAccepted(client_message_id) {
    this.#unwanted.add(client_message_id);
  }

  /**
   * Whether the reply with that id will be stopped once it is accepted.
   * @param {string} message_id
   */
  isUnwanted(message_id) {
    return isUnsentReply(message_id) && this.#unwanted.has(clientIdOf(message_id));
  }

  /**
   * The same by client id, and forget it.
   * @param {string} client_message_id
   */
  takeUnwanted(client_message_id) {
    return this.#unwanted.delete(client_message_id);
  }

  /**
   * The `stored` messages followed by these, each in place of what it replaces; a refused one
   * replaces nothing.
   * @param {Message[]} stored
   */
  follow(stored) {
    let shown = stored;
    for (const { prompt, reply } of this.#held.values()) {
      const added = [prompt, reply].filter((message) => message !== null);
      const parent = added[0]?.parent_message_id;
      if (parent !== undefined && prompt?.state !== "refused") shown = upTo(shown, parent);
      shown = [...shown, ...added];
    }
    return shown;
  }
}

/**
 * The client id under which an unsent message or its reply was sent.
 * @param {string} message_id
 */
export function clientIdOf(message_id) {
  return message_id.replace(/^(?:prompt|reply):/, "");
}

/** @param {string | undefined} message_id */
export function isUnsent(message_id) {
  return /^(?:prompt|reply):/.test(message_id ?? "");
}

/** @param {string | undefined} message_id */
export function isUnsentReply(message_id) {
  return Boolean(message_id?.startsWith("reply:"));
}

/**
 * @param {Message[]} messages
 * @param {string | null} id
 */
function upTo(messages, id) {
  if (!id) return [];
  const place = messages.findIndex((message) => message.message_id === id);
  return place < 0 ? messages : messages.slice(0, place + 1);
}

/**
 * @param {string} client_message_id
 * @param {string} content
 * @param {string | undefined} parent_message_id
 * @returns {Message}
 */
function newPrompt(client_message_id, content, parent_message_id) {
  return {
    message_id: `prompt:${client_message_id}`,
    role: "user",
    client_message_id,
    parent_message_id: parent_message_id === "" ? null : parent_message_id,
    state: "sending",
    version: 1,
    parts: [{ type: "text", text: content }],
  };
}

/**
 * @param {string} client_message_id
 * @param {string | null | undefined} parent_message_id
 * @param {string | undefined} agent
 * @returns {Message}
 */
function newReply(client_message_id, parent_message_id, agent) {
  return {
    agent,
    message_id: `reply:${client_message_id}`,
    role: "assistant",
    parent_message_id,
    run_status: "queued",
    state: "sending",
    version: 1,
    parts: [],
  };
}
