/** Where one types; says `submit` (detail: the text) and `stop`. */

export class Composer extends EventTarget {
  constructor({ form, input, send, stop, hint }) {
    super();
    Object.assign(this, { form, input, send, stop, hint });
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
    if (hadFocus) this.input.focus();
  }

  /** Put a text back to be edited; what is being typed stays in front of it. */
  take(text) {
    this.input.value = [this.input.value, text].filter(Boolean).join("\n");
    this.#adapt();
    this.input.focus();
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
    if (!CSS.supports("field-sizing", "content")) {
      this.input.style.height = "auto";
      this.input.style.height = `${this.input.scrollHeight}px`;
    }
  }

  #submit(event) {
    event.preventDefault();
    const text = this.input.value;
    if (!text.trim()) return;
    this.input.value = "";
    this.setHint("");
    this.#adapt();
    this.input.focus();
    this.dispatchEvent(new CustomEvent("submit", { detail: text }));
  }

  #press(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.form.requestSubmit();
  }

  #escape(event) {
    const closesSomething = document.querySelector(":popover-open, .account[open]");
    if (event.key === "Escape" && this.isBusy && !event.isComposing && !closesSomething) {
      this.#stop();
    }
  }

  #stop() {
    this.dispatchEvent(new Event("stop"));
  }
}
