/** Copies a reply: its Markdown, and its HTML for programs that accept that. */

import { joinText } from "../conversation/parts.js";
import { apiOf, ask } from "../page/api.js";
import { copyRich, showCopied } from "../page/clipboard.js";
import { all } from "../page/elements.js";

/**
 * Copy a message; the Markdown of a reply that the server has rendered is requested from it.
 * @param {HTMLElement} button
 * @param {Conversation} conversation
 */
export async function copyMessage(button, conversation) {
  const article = /** @type {HTMLElement} */ (button.closest(".message"));
  const id = article.dataset.messageId ?? "";
  const parts = conversation.get(id)?.parts;
  const shown = all(article, ".rendered:not(.reasoning-text)");
  let text;
  try {
    text = parts ? joinText(parts) : await readText(conversation, id);
  } catch {
    // biome-ignore lint/performance/useDomNodeTextContent: the lines must be those that are seen
    text = shown.map((part) => part.innerText.trim()).join("\n\n");
  }
  showCopied(button, await copyRich(text, shown.map(htmlOf).join("")));
}

/**
 * @param {Conversation} at
 * @param {string} id
 */
async function readText({ sessionId }, id) {
  return (await ask(apiOf(sessionId, `messages/${id}/`))).text;
}

/**
 * The HTML of a part without the controls of the page.
 * @param {HTMLElement} part
 */
function htmlOf(part) {
  const copy = /** @type {HTMLElement} */ (part.cloneNode(true));
  for (const element of copy.querySelectorAll("button:not(.note-link), iframe")) element.remove();
  return copy.innerHTML;
}
