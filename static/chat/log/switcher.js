/** The control that switches between sibling messages. */

import { setText, within } from "../page/elements.js";
import { describePlace } from "../page/labels.js";

/**
 * Show the position of `message` among `ids`, those of itself and its siblings, oldest first.
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
 * After a switch, focus the same button of the new message, or the other one if that is disabled.
 * @param {string} id
 * @param {{ isNext: boolean }} at
 */
export function focusSwitcher(id, { isNext }) {
  const switcher = document.getElementById(`m-${id}`)?.querySelector(".switcher");
  const buttons = [...(switcher?.querySelectorAll("button") ?? [])];
  if (isNext) buttons.reverse();
  buttons.find((button) => !button.disabled)?.focus({ preventScroll: true });
}
