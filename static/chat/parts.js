/**
 * The parts of a reply, grown by the frames of its run.
 *
 * The first token after another part begins with a separator when there was text before, so that the
 * tokens of a run, joined, are the joined text parts.
 */

const SEPARATOR = "\n\n";

export function joinText(parts) {
  return textsOf(parts)
    .map((part) => part.text)
    .join(SEPARATOR);
}

export function textsOf(parts) {
  return parts.filter((part) => part.type === "text");
}

export function addText(parts, delta) {
  const last = parts.at(-1);
  const follows = last && last.type !== "text" && textsOf(parts).some((part) => part.text);
  grow(parts, "text", follows && delta.startsWith(SEPARATOR) ? delta.slice(2) : delta);
}

export function addReasoning(parts, delta) {
  grow(parts, "reasoning", delta);
}

/** Another agent goes on with the reply. */
export function addAgent(parts, name) {
  parts.push({ type: "agent", name });
}

/** The agent that took over last, if one did. */
export function agentOf(parts) {
  return parts.findLast((part) => part.type === "agent")?.name;
}

function grow(parts, type, delta) {
  const last = parts.at(-1);
  if (last?.type === type) last.text += delta;
  else parts.push({ type, text: delta });
}

/** Apply `tool.started`, `.progress`, `.finished` or `.failed`. */
export function applyTool(parts, { event, tool_call_id, name, ...fields }) {
  const status = event.slice("tool.".length);
  // Some models give the calls of each turn the same ids again.
  const isNew = status === "started";
  const isSame = (part) => part.type === "tool" && part.tool_call_id === tool_call_id;
  const known = !isNew && parts.findLast(isSame);
  if (known) Object.assign(known, fields, { status });
  else parts.push({ ...fields, type: "tool", tool_call_id, name, status });
}

/** Apply `input.requested`. */
export function addRequest(parts, at) {
  const { request_id, tool_call_id, tool, description, expires_at } = at;
  const call = { tool_call_id, tool, description, arguments: at.arguments, expires_at };
  parts.push({ type: "approval", request_id, ...call });
}

/** Apply `input.resolved`. */
export function resolveRequest(parts, { request_id, decision, by, decided_at, message }) {
  const request = parts.find((part) => part.request_id === request_id);
  if (request) Object.assign(request, { decision, by, decided_at, message });
}

/** Whether somebody has to answer before the reply goes on. */
export function hasOpenRequest(parts) {
  return parts.some((part) => part.type === "approval" && !part.decision);
}

/** The final parts: a step that is still at work has failed. */
export function closeTools(parts) {
  for (const part of parts) {
    if (part.status === "started" || part.status === "progress") part.status = "failed";
  }
}

/** Make the text what the server says it is, if it is anything else. */
export function settleText(parts, text) {
  if (joinText(parts) === text) return parts;
  const steps = parts.filter((part) => part.type !== "text");
  return text ? [...steps, { type: "text", text }] : steps;
}

/** Whether `next` shows all that `parts` shows, and perhaps more. */
export function continues(parts, next) {
  return parts.every((part, index) => {
    const other = next[index];
    return other?.type === part.type && (other.text ?? "").startsWith(part.text ?? "");
  });
}
