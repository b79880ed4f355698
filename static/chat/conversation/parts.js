/**
 * The parts of a reply, built from the frames of its run.
 *
 * The first token after another part begins with a separator when there was text before, so the
 * text parts joined equal the tokens of the run joined.
 */

const SEPARATOR = "\n\n";

/** @param {Part[]} parts */
export function joinText(parts) {
  return textsOf(parts)
    .map((part) => part.text)
    .join(SEPARATOR);
}

/** @param {Part[]} parts */
export function textsOf(parts) {
  return parts.filter(isText);
}

/**
 * @param {Part[]} parts
 * @param {string} delta
 */
export function addText(parts, delta) {
  const last = parts.at(-1);
  const follows = last && last.type !== "text" && textsOf(parts).some((part) => part.text);
  grow(parts, "text", follows && delta.startsWith(SEPARATOR) ? delta.slice(2) : delta);
}

/**
 * @param {Part[]} parts
 * @param {string} delta
 */
export function addReasoning(parts, delta) {
  grow(parts, "reasoning", delta);
}

/**
 * Note that another agent continues the reply.
 * @param {Part[]} parts
 * @param {string} name
 */
export function addAgent(parts, name) {
  parts.push({ type: "agent", name });
}

/**
 * The agent that took over last; undefined if none did.
 * @param {Part[]} parts
 */
export function agentOf(parts) {
  return parts.findLast((part) => part.type === "agent")?.name;
}

/**
 * @param {Part[]} parts
 * @param {TextOrThoughts["type"]} type
 * @param {string} delta
 */
function grow(parts, type, delta) {
  const last = parts.at(-1);
  if (last && "text" in last && last.type === type) last.text += delta;
  else parts.push({ type, text: delta });
}

/**
 * Apply `tool.started`, `.progress`, `.finished` or `.failed`.
 * @param {Part[]} parts
 * @param {ToolMetadata} at
 */
export function applyTool(parts, at) {
  const { event, tool_call_id, name } = at;
  const status = /** @type {ToolPart["status"]} */ (event.slice("tool.".length));
  // Some models reuse the ids of tool calls in each turn.
  const isNew = status === "started";
  const known = isNew ? undefined : parts.findLast((part) => isCall(part, tool_call_id));
  if (known) Object.assign(known, toldOf(at), { status });
  else parts.push({ ...toldOf(at), type: "tool", tool_call_id, name, status });
}

/**
 * @param {Part} part
 * @param {string} tool_call_id
 */
function isCall(part, tool_call_id) {
  return part.type === "tool" && part.tool_call_id === tool_call_id;
}

/**
 * The fields of a tool part that the frame contains.
 * @param {Partial<ToolPart>} at
 * @returns {Partial<ToolPart>}
 */
function toldOf({ arguments: given, progress, fraction, output, summary, duration_ms }) {
  const fields = { arguments: given, progress, fraction, output, summary, duration_ms };
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

/**
 * Apply `input.requested`.
 * @param {Part[]} parts
 * @param {Metadata<"input.requested">} at
 */
export function addRequest(parts, at) {
  const { request_id, tool_call_id, tool, description, expires_at } = at;
  const call = { tool_call_id, tool, description, arguments: at.arguments, expires_at };
  const mark = at.irreversible ? { irreversible: at.irreversible } : {};
  parts.push({ type: "approval", request_id, ...call, ...mark });
}

/**
 * Apply `input.resolved`.
 * @param {Part[]} parts
 * @param {Metadata<"input.resolved">} at
 */
export function resolveRequest(parts, { request_id, decision, by, decided_at, message }) {
  const request = parts.find((part) => part.type === "approval" && part.request_id === request_id);
  if (request) Object.assign(request, { decision, by, decided_at, message });
}

/**
 * Whether a request waits for an answer.
 * @param {Part[]} parts
 */
export function hasOpenRequest(parts) {
  return parts.some((part) => part.type === "approval" && !part.decision);
}

/**
 * Mark tool steps that are still open as failed; the run has ended.
 * @param {Part[]} parts
 */
export function closeTools(parts) {
  for (const part of parts) {
    const isOpen =
      part.type === "tool" && (part.status === "started" || part.status === "progress");
    if (isOpen) part.status = "failed";
  }
}

/**
 * Replace the text by that of the server if the two differ.
 * @param {Part[]} parts
 * @param {string} text
 * @returns {Part[]}
 */
export function settleText(parts, text) {
  if (joinText(parts) === text) return parts;
  const steps = parts.filter((part) => part.type !== "text");
  return text ? [...steps, { type: "text", text }] : steps;
}

/**
 * Whether `next` contains all of `parts`, and perhaps more.
 * @param {Part[]} parts
 * @param {Part[]} next
 */
export function continues(parts, next) {
  return parts.every((part, index) => {
    const other = next[index];
    return other?.type === part.type && textOf(other).startsWith(textOf(part));
  });
}

/** @param {Part} part */
function textOf(part) {
  return "text" in part ? part.text : "";
}

/**
 * @param {Part} part
 * @returns {part is TextOrThoughts}
 */
function isText(part) {
  return part.type === "text";
}
