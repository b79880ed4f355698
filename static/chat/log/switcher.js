/** Which of the messages at one place is shown, and the way to the others. */

import { setText, within } from "../page/elements.js";
import { describePlace } from "../page/labels.js";

/**
 * Show the place of `message` among `ids`, its own and those of its siblings, oldest first.
 * @param {HTMLElement} element
 * @param {Message} at
 * @param {string[]} ids
 */
export function showPlace(element, { message_id }, ids) {
  const switcher = within(element, ".switcher");
  const place = ids.indexOf(message_id);
  switcher.hidden = place < 0 || ids.length < 2;
  if (switcher.hidden) return;
  const [previous, next] = switcher.querySelectorAll("button");
  aim(previous, ids[place - 1]);
  aim(next, ids[place + 1]);
  const shown = within(switcher, ".switcher-place");
  shown.ariaLabel = describePlace(place, ids.length);
  setText(shown, `${place + 1}/${ids.length}`);
}

/**
 * @param {HTMLButtonElement} button
 * @param {string} [id]
 */
function aim(button, id = "") {
  button.value = id;
  button.setAttribute("formaction", `#m-${id}`);
  button.disabled = !id;
}

/**
 * After a switch the keyboard is where it was, at the same button, or at the other one.
 * @param {string} id
 * @param {{ isNext: boolean }} at
 */
export function focusSwitcher(id, { isNext }) {
  const switcher = document.getElementById(`m-${id}`)?.querySelector(".switcher");
  const buttons = [...(switcher?.querySelectorAll("button") ?? [])];
  if (isNext) buttons.reverse();
  buttons.find((button) => !button.disabled)?.focus({ preventScroll: true });
}
