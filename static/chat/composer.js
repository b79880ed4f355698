/**
 * Where one types.
 *
 * Says `submit` (detail: `{text, isUrgent, edited}`), `stop`, and `edit` when the last message is
 * to be taken back into it.
 */

import { isComposing } from "./elements.js";

export class Composer extends EventTarget {
  constructor({ form, input, send, stop, hint, urgent, editing }) {
    super();
    Object.assign(this, { form, input, send, stop, hint, urgent, editing });
    urgent.addEventListener("click", () => this.#send(true));
    editing.querySelector("button").addEventListener("click", () => this.endEdit());
    form.addEventListener("submit", (event) => this.#submit(event));
    input.addEventListener("input", () => this.#adapt());
    input.addEventListener("keydown", (event) => this.#press(event));
    stop.addEventListener("click", () => this.#stop());
    document.addEventListener("keydown", (event) => this.#escape(event));
    this.isBusy = false;
  }

  enable() {
    this.input.disabled = false;
    this.send.disabled = false;
    this.#adapt();
    this.focus();
  }

  /** Be ready to type, but for where that would open a keyboard over half the page. */
  focus() {
    if (matchMedia("(hover: hover)").matches) this.input.focus();
  }

  setBusy(isBusy) {
    if (this.isBusy === isBusy) return;
    const hadFocus = document.activeElement === this.stop;
    this.isBusy = isBusy;
    this.#adapt();
    if (hadFocus) this.focus();
  }

  /** What is being typed as a message of its own. */
  get draft() {
    return this.edited ? this.kept : this.input.value;
  }

  /** Put a text back to be edited; what is being typed stays in front of it. */
  take(text) {
    this.input.value = [this.input.value, text].filter(Boolean).join("\n");
    this.#change();
    this.input.focus();
  }

  /** The same with a text that could not be sent; `hint` says why. */
  keep(text, hint) {
    this.take(text);
    this.setHint(hint, true);
  }

  /** Have `text` edited: what is sent takes the place of `message`. */
  beginEdit(text, message) {
    if (!this.edited) this.kept = this.input.value;
    this.edited = message;
    this.editing.hidden = false;
    this.input.value = text;
    this.#change();
    this.input.focus();
  }

  /** Leave the message as it was. */
  endEdit() {
    this.#empty();
    this.input.focus();
  }

  #empty() {
    this.input.value = this.edited ? this.kept : "";
    this.edited = null;
    this.editing.hidden = true;
    this.#change();
  }

  /** As if it had been typed. */
  #change() {
    this.input.dispatchEvent(new Event("input"));
  }

  setHint(text, isBad = false) {
    this.hint.textContent = text;
    this.hint.classList.toggle("bad", isBad);
  }

  /** While a reply is written, an empty box stops it and a full one queues a message. */
  #adapt() {
    const isEmpty = !this.input.value.trim();
    this.stop.hidden = !this.isBusy;
    this.send.hidden = this.isBusy && isEmpty;
    this.urgent.hidden = !this.isBusy || isEmpty;
    if (!CSS.supports("field-sizing", "content")) {
      this.input.style.height = "auto";
      this.input.style.height = `${this.input.scrollHeight}px`;
    }
  }

  #submit(event) {
    event.preventDefault();
    this.#send(false);
  }

  #send(isUrgent) {
    const { edited } = this;
    const text = this.input.value;
    if (!text.trim()) return;
    this.setHint("");
    this.#empty();
    this.input.focus();
    this.dispatchEvent(new CustomEvent("submit", { detail: { text, isUrgent, edited } }));
  }

  #press(event) {
    if (isComposing(event) || event.shiftKey || event.altKey) return;
    const isCommand = event.ctrlKey || event.metaKey;
    if (event.key === "Enter") {
      event.preventDefault();
      this.#send(isCommand && this.isBusy);
    } else if (event.key === "ArrowUp" && !this.input.value && !isCommand) {
      event.preventDefault();
      this.dispatchEvent(new Event("edit"));
    }
  }

  #escape(event) {
    const closesSomething = document.querySelector(":popover-open:not(.toast), .account[open], dialog[open]");
    if (event.key !== "Escape" || isComposing(event) || closesSomething) return;
    if (this.edited) this.endEdit();
    else if (this.isBusy) this.#stop();
  }

  #stop() {
    this.dispatchEvent(new Event("stop"));
  }
}
