/** Below a reply: what the model is given in place of all messages down to it. */

import { fromTemplate, setText } from "./elements.js";

/** `text` is empty where that is nothing; a message without one changes nothing. */
export function showSummary(article, text) {
  if (text === undefined || article.querySelector(":scope > .summary")) return;
  const line = fromTemplate(text ? "summary-template" : "left-out-template");
  if (text) setText(line.querySelector(".summary-text"), text);
  article.append(line);
}
