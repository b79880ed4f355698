/** The site's REST API, as the page uses it. */

import { data } from "./words.js";

/** The answer to a request, null where it has no content; throws what was refused or not sent. */
export async function ask(address, { method = "GET", body } = {}) {
  const headers = { Accept: "application/json", "X-CSRFToken": csrfToken() };
  if (body) headers["Content-Type"] = "application/json";
  const response = await fetch(address, { method, headers, body: body && JSON.stringify(body) });
  if (!response.ok) throw new Error(`${method} ${address}: ${response.status}`);
  return response.status === 204 ? null : response.json();
}

/** Where the API has a session, or what belongs to it. */
export function apiOf(session_id, rest = "") {
  return `${data.urls.sessions}${session_id}/${rest}`;
}

function csrfToken() {
  return document.querySelector("[name=csrfmiddlewaretoken]").value;
}
