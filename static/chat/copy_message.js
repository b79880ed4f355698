/** Copying a reply: its Markdown, and beside it what the page shows, for whatever takes that. */

import { apiOf, ask } from "./api.js";
import { copyRich, showCopied } from "./clipboard.js";
import { joinText } from "./parts.js";

/** What the server has rendered is asked for as it was written. */
export async function copyMessage(button, { conversation }) {
  const article = button.closest(".message");
  const message = conversation.get(article.dataset.messageId);
  const shown = [...article.querySelectorAll(".rendered")];
  let text;
  try {
    text = message.parts ? joinText(message.parts) : await readText(conversation, message);
  } catch {
    text = shown.map((part) => part.innerText.trim()).join("\n\n");
  }
  showCopied(button, await copyRich(text, shown.map(htmlOf).join("")));
}

async function readText({ sessionId }, { message_id }) {
  return (await ask(apiOf(sessionId, `messages/${message_id}/`))).text;
}

/** Without what belongs to the page alone. */
function htmlOf(part) {
  const copy = part.cloneNode(true);
  for (const element of copy.querySelectorAll("button")) element.remove();
  return copy.innerHTML;
}
