/** The page's texts, translated by the server, and the data that its code starts from. */

/**
 * Parse the JSON of a script element; pages other than the chat have texts but no data.
 * @param {string} id
 */
function read(id) {
  return JSON.parse(document.getElementById(id)?.textContent ?? "null");
}

/** @type {PageData} */
export const data = read("chat-data");

/**
 * Another conversation is shown: what is said of it is of that one from now on.
 * @param {PageData} loaded
 */
export function renewData(loaded) {
  Object.assign(data, loaded);
}

/** @type {Words} */
export const words = read("chat-words");

/**
 * `text` with each `{name}` filled in.
 * @param {string} text
 * @param {Record<string, unknown>} values
 */
export function fill(text, values) {
  return text.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}

/**
 * The language of the page, in which dates are written too.
 * @type {string | undefined}
 */
export const language = document.documentElement?.lang || undefined;

const UNSEEN = /^[\s\p{Default_Ignorable_Code_Point}\u2800]*$/u;

/**
 * Whether nothing of `text` can be seen; the server refuses such a message.
 * @param {string} text
 */
export function isBlank(text) {
  return UNSEEN.test(text);
}

/**
 * Both texts, one below the other; an empty one takes no line.
 * @param {string} first
 * @param {string} second
 */
export function joinTexts(first, second) {
  return [first, second].filter(Boolean).join("\n");
}

/**
 * The singular or the plural text, by number.
 * @param {string} one
 * @param {string} many
 * @param {number} number
 */
export function count(one, many, number) {
  return number === 1 ? one : fill(many, { count: number });
}
