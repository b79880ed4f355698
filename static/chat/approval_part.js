/** A tool call that somebody has to approve, in a card of its own. */

import { updateApproval } from "./approval.js";
import { fromTemplate } from "./elements.js";

export class ApprovalPart {
  constructor(element) {
    this.element = element ?? fromTemplate("approval-template");
  }

  grow(part) {
    updateApproval(this.element, part);
  }

  finish(part) {
    this.grow(part);
  }

  remove() {}
}
