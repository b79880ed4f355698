/** What was typed here and is not stored yet, as messages. */

export class Pending {
  #held = new Map();

  get size() {
    return this.#held.size;
  }

  has(client_message_id) {
    return this.#held.has(client_message_id);
  }

  /** The message as it was typed; null where another reply was asked for. */
  promptOf(client_message_id) {
    return this.#held.get(client_message_id)?.prompt;
  }

  /** `answered`: what the other reply that is asked for by `regenerate` answers too. */
  add({ client_message_id, content, regenerate, parent_message_id, agent }, answered) {
    const prompt = regenerate ? null : promptOf(client_message_id, content, parent_message_id);
    const parent = regenerate ? answered : prompt.message_id;
    this.#held.set(client_message_id, { prompt, reply: replyOf(client_message_id, parent, agent) });
  }

  /** Whether it was there. */
  delete(client_message_id) {
    return this.#held.delete(client_message_id);
  }

  /** Show why a message was not taken; a wish for another reply is gone. */
  refuse(client_message_id, note) {
    const prompt = this.promptOf(client_message_id);
    if (prompt) {
      const refused = { ...prompt, state: "refused", note, version: prompt.version + 1 };
      this.#held.set(client_message_id, { prompt: refused, reply: null });
    } else {
      this.#held.delete(client_message_id);
    }
  }

  /** `stored` messages with these behind them, each in the place of what it replaces. */
  follow(stored) {
    let shown = stored;
    for (const { prompt, reply } of this.#held.values()) {
      const parent = (prompt ?? reply).parent_message_id;
      if (parent !== undefined) shown = upTo(shown, parent);
      shown = [...shown, ...[prompt, reply].filter(Boolean)];
    }
    return shown;
  }
}

function upTo(messages, id) {
  if (!id) return [];
  const place = messages.findIndex((message) => message.message_id === id);
  return place < 0 ? messages : messages.slice(0, place + 1);
}

function promptOf(client_message_id, content, parent_message_id) {
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

function replyOf(client_message_id, parent_message_id, agent) {
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
