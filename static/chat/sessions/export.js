/** The dialog that downloads one conversation or all of them, in a format to choose. */

import { apiOf } from "../page/api.js";
import { closest, focusLost, within } from "../page/elements.js";
import { data } from "../page/words.js";

export class ExportDialog {
  id = "";

  /** @param {HTMLDialogElement} dialog */
  constructor(dialog) {
    this.dialog = dialog;
    this.form = within(dialog, "form");
    this.link = within(dialog, "a");
    this.form.addEventListener("change", () => this.#aim());
    this.form.addEventListener("submit", (event) => this.#submit(event));
    dialog.addEventListener("click", (event) => this.#press(event));
    dialog.addEventListener("close", focusLost);
  }

  /** @param {ChosenSession} at */
  open({ id }) {
    this.id = id;
    this.#aim();
    this.dialog.showModal();
  }

  /** Have the link download what is chosen. */
  #aim() {
    const chosen = new FormData(this.form);
    const isAll = chosen.get("range") === "all";
    const address = isAll ? data.urls.export : apiOf(this.id, "transcript/");
    this.link.href = `${address}?export_format=${chosen.get("export_format")}`;
  }

  /**
   * Enter on a choice downloads it: it presses the hidden button.
   * @param {Event} event
   */
  #submit(event) {
    event.preventDefault();
    this.link.click();
  }

  /**
   * A click beside the dialog closes it, and so do the download and the button.
   * @param {Event} event
   */
  #press(event) {
    if (event.target === this.dialog || closest(event, "a, button[type]")) this.dialog.close();
  }
}
