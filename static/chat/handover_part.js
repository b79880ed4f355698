/** One agent hands over to another. */

import { fromTemplate, setText } from "./elements.js";
import { fill, nameOf, words } from "./words.js";

export class HandoverPart {
  constructor(element) {
    this.element = element ?? fromTemplate("agent-template");
  }

  grow({ name }) {
    setText(this.element, fill(words.takes_over, { agent: nameOf(name) }));
  }
}
