/** Requests to the server: the REST API, and rendered pages. */

import { all, within } from "./elements.js";
import { data, words } from "./words.js";

const CSRF_FIELD = "input[name=csrfmiddlewaretoken]";

/** The token that is valid now: its cookie changes when somebody signs in, in any tab. */
function readToken() {
  const name = `${data.csrf_cookie}=`;
  const cookie = document.cookie.split("; ").find((one) => one.startsWith(name));
  return cookie?.slice(name.length) ?? "";
}

/**
 * Before a form is submitted, give it the token that is valid now.
 * @param {HTMLFormElement} form
 */
export function renewToken(form) {
  form.querySelector(CSRF_FIELD)?.setAttribute("value", readToken());
}

/**
 * The parsed answer to a request, null if it has no content; throws if it was refused or could not
 * be sent.
 * @param {string} address
 * @param {{ method?: string, body?: object }} [at]
 * @returns {Promise<any>}
 */
export async function ask(address, { method = "GET", body } = {}) {
  /** @type {Record<string, string>} */
  const headers = { Accept: "application/json", "X-CSRFToken": readToken() };
  if (body) headers["Content-Type"] = "application/json";
  const response = await fetch(address, { method, headers, body: body && JSON.stringify(body) });
  const { ok, status } = response;
  if (!ok) throw new Error(`${method} ${address}: ${status}`, { cause: status });
  return status === 204 ? null : response.json();
}

/**
 * What to tell the user when `ask` has failed.
 * @param {unknown} error
 */
export function describeFailure(error) {
  const isSignedOut = error instanceof Error && error.cause === 401;
  return isSignedOut ? words.connection.signed_out : words.manage.failed;
}

/**
 * Return all rows of a paginated list; throws as `ask` does.
 * @param {string} address
 */
export async function askAll(address) {
  const rows = [];
  /** @type {string | null} */
  let query = "?page_size=200";
  while (query) {
    /** @type {{ results: any[], next: string | null }} */
    const { results, next } = await ask(address + query);
    rows.push(...results);
    query = next && new URL(next).search;
  }
  return rows;
}

/**
 * The address in the API of a session, or of something that belongs to it.
 * @param {string} session_id
 * @param {string} [rest]
 */
export function apiOf(session_id, rest = "") {
  return `${data.urls.sessions}${session_id}/${rest}`;
}

/**
 * Create a guest for this visitor, so that the message about to be sent has an owner; returns the
 * user's id.
 */
export async function becomeGuest() {
  const { user } = await ask(data.urls.guest, { method: "POST" });
  return user;
}

/** An answer with another status than 200, or from another address. */
export class Refused extends Error {}

/**
 * Load a page of a conversation as the server renders it now: its messages and its data, without
 * what this page has already. Rejects with `Refused`, or if nothing was answered.
 * @param {string} address
 * @returns {Promise<LoadedPage>}
 */
export async function loadHistory(address) {
  const headers = { Accept: "text/html", "X-Fragment": "1" };
  const response = await fetch(address, { headers });
  if (!response.ok || response.redirected) throw new Refused(`history: ${response.status}`);
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  return {
    data: JSON.parse(within(page, "#chat-data").textContent),
    messages: all(page, "#log > .message"),
    page,
  };
}
