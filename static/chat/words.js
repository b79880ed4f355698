/** The page's words, translated by the server. */

/** Pages around the chat have words, but no data. */
function read(id) {
  return JSON.parse(document.getElementById(id)?.textContent ?? null);
}

export const data = read("chat-data");
export const words = read("chat-words");

/** `text` with `{name}` filled in. */
export function fill(text, values) {
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** One of two texts, by number. */
export function count(one, many, number) {
  return number === 1 ? one : fill(many, { count: number });
}

/** An agent's name as people see it. */
export function nameOf(agent) {
  return agent[0].toUpperCase() + agent.slice(1);
}
