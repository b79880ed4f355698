import { data } from "./words.js";

/** Make this visitor a guest, so that what they are about to send has an owner; the user's key. */
export async function becomeGuest() {
  const field = document.querySelector("[name=csrfmiddlewaretoken]");
  const response = await fetch(data.urls.guest, {
    method: "POST",
    headers: { "X-CSRFToken": field.value, Accept: "application/json" },
  });
  if (!response.ok) throw new Error(`guest: ${response.status}`);
  const { user, csrf_token } = await response.json();
  for (const input of document.querySelectorAll("[name=csrfmiddlewaretoken]")) {
    input.value = csrf_token;
  }
  return user;
}
