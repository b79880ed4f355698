/**
 * Labels that the page and the server build by the same rules: `agentsite/web/view_models.py` has
 * the server's, and `tests/site/test_javascript.py` compares the two.
 */

import { isActive } from "../conversation/branch.js";
import { data, fill, language, words } from "./words.js";

const DAY_MS = 86_400_000;

/**
 * The display name of an agent.
 * @param {string} agent
 */
export function nameOf(agent) {
  return agent[0].toUpperCase() + agent.slice(1);
}

/**
 * The display name of the agent that replies.
 * @param {Message} message
 */
export function labelOfAgent({ agent }) {
  return nameOf(agent || data.agent.label);
}

/**
 * The display name of a tool.
 * @param {string} tool
 */
export function nameOfTool(tool) {
  return tool.replaceAll("_", " ");
}

/**
 * Why a reply ended; empty while it is worked on and when it is complete.
 * @param {Message} message
 */
export function describeEnding({ run_status = "", reason = "", error_code = "", error_text }) {
  if (isActive({ message_id: "", run_status })) return "";
  const failure = run_status === "failed" && (error_text ?? words.errors[error_code]);
  if (failure) return failure;
  return words.endings[reason] ?? words.endings[run_status] ?? "";
}

/**
 * The tokens and the cost of a reply; empty if they are not known.
 * @param {Usage | undefined} usage
 */
export function describeUsage(usage) {
  if (!usage?.total_tokens) return "";
  const { input_tokens: input, output_tokens: output, cost, currency } = usage;
  const tokens = fill(words.usage, { input, output });
  if (!Number(cost)) return tokens;
  return fill(words.usage_cost, {
    usage: tokens,
    cost: String(cost).replace(/\.?0+$/, ""),
    currency,
  });
}

/**
 * When a message was written: the time, and the date unless that is today.
 * @param {Date} moment
 * @param {Date} now
 */
export function describeTime(moment, now = new Date()) {
  const isToday = moment.toDateString() === now.toDateString();
  const isThisYear = moment.getFullYear() === now.getFullYear();
  return moment.toLocaleString(language, {
    year: isThisYear ? undefined : "numeric",
    month: isToday ? undefined : "short",
    day: isToday ? undefined : "numeric",
    hour: "2-digit",
    minute: "2-digit",
  });
}

/**
 * What an active reply is doing; `waiting` is the text for a reply that waits for the model.
 * @param {Message} message
 * @param {{ position: number, isStopping: boolean, isConnected: boolean, waiting: string }} at
 */
export function describeState(message, { position, isStopping, isConnected, waiting }) {
  const { states } = words;
  if (message.state === "sending") return isConnected ? states.sending : states.offline;
  if (isStopping) return states.stopping;
  if (position > 0) return fill(states.waiting, { position });
  if (message.run_status === "awaiting_input") return states.awaiting;
  if (message.state === "restarting") return states.restarting;
  if (message.state === "retrying") return fill(states.retrying, { seconds: message.wait_s });
  if (waiting) return waiting;
  return message.parts?.at(-1)?.type === "text" ? states.writing : states.thinking;
}

/**
 * What a tool is doing or has done and, once it has ended, how long that took.
 * @param {ToolPart} part
 */
export function describeStep({ status, name, summary, duration_ms = 0 }) {
  const label = fill(words.steps[status] ?? "{name}", { name: nameOfTool(name) });
  const said = status === "finished" && summary ? summary : label;
  if (duration_ms < data.notable_ms) return said;
  return fill(words.took, { step: said, seconds: (Math.round(duration_ms / 100) / 10).toFixed(1) });
}

/**
 * The decision about a request, for its reader; empty while it is open. A decision that a newer
 * server has written is returned as it is.
 * @param {Approval} part
 */
export function describeDecision({ decision, by }) {
  if (!decision) return "";
  const mine = by && by === data.username ? words.approvals[`${decision}_you`] : undefined;
  return fill(mine ?? words.approvals[decision] ?? decision, { by });
}

/**
 * The position of a message among its siblings; `place` counts from 0.
 * @param {number} place
 * @param {number} count
 */
export function describePlace(place, count) {
  return fill(words.version, { index: place + 1, count });
}

/** @type {Intl.DateTimeFormat | undefined} */
let months;

/**
 * The heading below which a session is listed: a part of the last 8 days, or a month.
 * @param {Date} moment of its last activity
 * @param {Date} now
 * @param {boolean} [isPinned]
 */
export function describeGroup(moment, now, isPinned = false) {
  const { groups } = words;
  const days = Math.round((midnightOf(now) - midnightOf(moment)) / DAY_MS);
  if (isPinned) return groups.pinned;
  if (days <= 1) return days === 1 ? groups.yesterday : groups.today;
  if (days <= 7) return groups.week;
  months ??= new Intl.DateTimeFormat(language, { month: "long", year: "numeric" });
  return months.format(moment);
}

/** @param {Date} moment */
function midnightOf(moment) {
  return new Date(moment).setHours(0, 0, 0, 0);
}

/**
 * The state of a session in the list.
 * @param {SessionInfo} session
 */
export function describeSession({ run_status, archived }) {
  const { replying, queued, awaiting } = words;
  /** @type {Record<string, string>} */
  const states = { running: replying, queued, awaiting_input: awaiting };
  return states[run_status ?? ""] ?? (archived ? words.archived : "");
}
