/** Which of the messages at one place is shown, and the way to the others. */

import { setText } from "./elements.js";
import { fill, words } from "./words.js";

/** Show the place of `message` among `ids`, its own and those of its siblings, oldest first. */
export function showPlace(element, { message_id }, ids) {
  const switcher = element.querySelector(".switcher");
  const place = ids.indexOf(message_id);
  switcher.hidden = place < 0 || ids.length < 2;
  if (switcher.hidden) return;
  const [previous, next] = switcher.querySelectorAll("button");
  aim(previous, ids[place - 1]);
  aim(next, ids[place + 1]);
  const shown = switcher.querySelector(".switcher-place");
  shown.ariaLabel = nameOf(place, ids.length);
  setText(shown, `${place + 1}/${ids.length}`);
}

/** Which one the message of that id is, in words. */
export function describePlace(branch, id) {
  const ids = branch.siblingsOf(branch.get(id));
  return nameOf(ids.indexOf(id), ids.length);
}

function nameOf(place, count) {
  return fill(words.version, { index: place + 1, count });
}

function aim(button, id = "") {
  button.value = id;
  button.setAttribute("formaction", `#m-${id}`);
  button.disabled = !id;
}

/** After a switch the keyboard is where it was, at the same button, or at the other one. */
export function focusSwitcher(id, { isNext }) {
  const switcher = document.getElementById(`m-${id}`)?.querySelector(".switcher");
  const buttons = [...(switcher?.querySelectorAll("button") ?? [])];
  if (isNext) buttons.reverse();
  buttons.find((button) => !button.disabled)?.focus({ preventScroll: true });
}
