/** Frames of one session, as the server sends them, and what the page shows after some of them. */

import { Conversation } from "../../static/chat/conversation/conversation.js";
import { joinText } from "../../static/chat/conversation/parts.js";

export const SESSION = "5e551017-0000-0000-0000-000000000000";

/** What a page without messages starts from. */
export const EMPTY = {
  ...{ session_id: SESSION, rev: 1, run: null, parts: [], queue: [] },
  ...{ messages: [], siblings: {}, branch: "" },
};

export function newConversation(data = {}) {
  return new Conversation(structuredClone({ ...EMPTY, ...data }));
}

/** Apply frames to a new conversation, sending `resume` where that is asked for. */
export function play(...frames) {
  const conversation = newConversation();
  const effects = [];
  for (const frame of structuredClone(frames)) {
    for (const { kind } of conversation.apply(frame)) {
      effects.push(kind);
      if (kind === "resume") conversation.beginResume();
    }
  }
  const { messages } = conversation;
  return {
    effects,
    cursor: conversation.beginResume(),
    ids: messages.map(({ message_id }) => message_id),
    texts: messages.map(({ parts }) => joinText(parts ?? [])),
    kinds: messages.map(({ parts }) => (parts ?? []).map(({ type }) => type).join(" ")),
    statuses: messages.map(({ run_status }) => run_status ?? ""),
    generations: messages.map(({ generation }) => generation ?? 0),
  };
}

export function status(event, metadata = {}) {
  return { type: "status", session_id: SESSION, content: "", metadata: { event, ...metadata } };
}

export function message(id, number, parent, { rev = 2, ...fields } = {}) {
  const role = id.startsWith("u") ? "user" : "assistant";
  const shared = { message_id: id, number, parent_message_id: parent, role };
  return status("message.created", { rev, ...shared, ...fields });
}

export function asked(id, number, parent, rev = 2) {
  return message(id, number, parent, { rev, parts: [{ type: "text", text: id }] });
}

export function replying(id, number, parent, { rev = 2, run = "r1" } = {}) {
  return message(id, number, parent, { rev, run_id: run, run_status: "queued", parts: [] });
}

export function at(seq, { run = "r1", number = 1, epoch = 1, reply = "a2" } = {}) {
  return { run_id: run, run_number: number, epoch, seq, message_id: reply };
}

export function started(where) {
  return status("run.started", { agent: "assistant", ...at(1, where) });
}

export function token(seq, content, where) {
  return { type: "token", session_id: SESSION, content, metadata: at(seq, where) };
}

export function complete(seq, content, where) {
  const metadata = { ...at(seq, where), finish_reason: "completed", html: content, usage: {} };
  return { type: "complete", session_id: SESSION, content, metadata };
}

export function failed(seq, content, code = "internal") {
  const metadata = { ...at(seq), code, retryable: true, terminal: true };
  return { type: "error", session_id: SESSION, content, metadata };
}

/** A question, its reply and the run that has begun to write it. */
export const TURN = [asked("u1", 1, null), replying("a2", 2, "u1"), started()];
