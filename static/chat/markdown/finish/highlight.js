/** Syntax highlighting, done while the browser is idle. */

import { within } from "../../page/elements.js";
import { LANGUAGES } from "./languages.js";

/** Longer code stays plain: highlighting it would block the page. */
const MAX_CHARS = 16_384;
const IDLE_MS = 10;
/** @type {HTMLElement[]} */
const waiting = [];
/** @type {Map<string, Highlighter>} */
const loaded = new Map();
let isScheduled = false;

/**
 * Queue a `<pre>` that names its language for highlighting.
 * @param {HTMLElement} block
 */
export function highlight(block) {
  if (!LANGUAGES.has(block.dataset.language ?? "") || block.textContent.length > MAX_CHARS) return;
  waiting.push(block);
  schedule();
}

function schedule() {
  if (isScheduled) return;
  isScheduled = true;
  if ("requestIdleCallback" in window) requestIdleCallback(work);
  else setTimeout(work, IDLE_MS, { didTimeout: true, timeRemaining: () => IDLE_MS });
}

/**
 * Highlight waiting blocks, the newest first, one at a time while there is idle time.
 * @param {IdleDeadline} deadline
 */
function work(deadline) {
  while (waiting.length && deadline.timeRemaining() >= IDLE_MS) {
    const block = /** @type {HTMLElement} */ (waiting.pop());
    const { language = "" } = block.dataset;
    if (loaded.has(language)) colour(block, language);
    else loadLanguage(language).then((isLoaded) => isLoaded && highlight(block));
  }
  isScheduled = false;
  if (waiting.length) schedule();
}

/** @param {string} name */
async function loadLanguage(name) {
  try {
    const [{ default: highlighter }, grammar] = await Promise.all([
      import("../../../vendor/highlight.js"),
      LANGUAGES.get(name)?.(),
    ]);
    highlighter.registerLanguage(name, grammar?.default);
    loaded.set(name, highlighter);
    return true;
  } catch {
    return false;
  }
}

/**
 * Highlight a block; the library escapes the code and adds its own markup.
 * @param {HTMLElement} block
 * @param {string} language
 */
function colour(block, language) {
  const code = within(block, "code");
  const { value = "" } = loaded.get(language)?.highlight(code.textContent, { language }) ?? {};
  const template = document.createElement("template");
  template.innerHTML = value;
  code.replaceChildren(template.content);
}
