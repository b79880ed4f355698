/** What a tool is given and returns, as names and values where it is a JSON object. */

import { words } from "../page/words.js";

/**
 * Show a text in `shown` and, if it is a JSON object, the names and values of that before it.
 * @param {HTMLElement} shown
 * @param {string} text
 */
export function showPairs(shown, text) {
  if (shown.textContent === text) return;
  shown.textContent = text;
  const raw = /** @type {HTMLDetailsElement} */ (shown.parentElement);
  const pairs = readPairs(text);
  raw.previousElementSibling?.replaceChildren(...pairs.map(newPair));
  raw.open = pairs.length === 0;
}

/** @param {[string, string]} pair */
function newPair([name, value]) {
  const pair = document.createElement("div");
  const [term, description] = [document.createElement("dt"), document.createElement("dd")];
  term.textContent = name;
  description.textContent = value;
  description.dir = "auto";
  pair.append(term, description);
  return pair;
}

/**
 * The names and values of a JSON object as people read them; empty for any other text, and if it
 * has a value that is not exact here or cannot be shown on a line.
 * @param {string} text
 * @returns {[string, string][]}
 */
export function readPairs(text) {
  let given;
  try {
    given = JSON.parse(text);
  } catch {
    return [];
  }
  if (!given || typeof given !== "object" || Array.isArray(given)) return [];
  const pairs = Object.entries(given).map(([name, value]) => [name, readValue(value)]);
  // Names that are numbers are not in their order.
  const isExact = pairs.every(([name, value]) => !/^\d+$/.test(name) && value !== null);
  return isExact ? /** @type {[string, string][]} */ (pairs) : [];
}

/** @param {unknown} value */
function readValue(value) {
  if (typeof value === "string") return value;
  if (typeof value === "boolean") return value ? words.yes : words.no;
  return Number.isSafeInteger(value) ? String(value) : null;
}
