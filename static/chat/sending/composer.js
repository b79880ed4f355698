/**
 * The text box in which a message is typed.
 *
 * Dispatches `submit` (detail: what was typed; cancelled if it has to stay in the box), `stop`, and
 * `edit` when the last message is to be edited.
 */

import { byId, within } from "../page/elements.js";
import { isField, isTyping } from "../page/keys.js";
import { data, isBlank, joinTexts } from "../page/words.js";

export class Composer extends /** @type {Emitter<{ submit: Typed, stop: null, edit: null }>} */ (
  EventTarget
) {
  /**
   * The message that is being edited, or null.
   * @type {Message | null}
   */
  edited = null;
  /** The text of that message; what is typed is no edit until it is another. */
  #original = "";
  kept = "";
  isBusy = false;
  #isComposing = false;

  /**
   * @param {{ form: HTMLFormElement, input: HTMLTextAreaElement, send: HTMLButtonElement,
   *   stop: HTMLElement, hint: HTMLElement, urgent: HTMLElement, editing: HTMLElement }} elements
   */
  constructor({ form, input, send, stop, hint, urgent, editing }) {
    super();
    this.input = input;
    this.send = send;
    this.stop = stop;
    this.hint = hint;
    this.urgent = urgent;
    this.editing = editing;
    urgent.addEventListener("click", () => this.#send(true));
    within(editing, "button").addEventListener("click", () => this.endEdit());
    form.addEventListener("submit", (event) => this.#submit(event));
    input.addEventListener("input", () => this.#adapt());
    for (const type of ["compositionstart", "compositionend"]) {
      input.addEventListener(type, () => {
        this.#isComposing = type === "compositionstart";
      });
    }
    stop.addEventListener("click", () => this.#stop());
  }

  enable() {
    this.input.disabled = false;
    this.send.disabled = false;
    this.input.enterKeyHint = makesLine() ? "enter" : "send";
    this.#adapt();
    if (canHover()) this.input.focus();
  }

  /**
   * Focus the text box or, where that would open an on-screen keyboard over half the page, the
   * messages.
   */
  focus() {
    if (canHover()) this.input.focus();
    else if (!isField(document.activeElement)) byId("log").focus({ preventScroll: true });
  }

  /** @param {boolean} isBusy */
  setBusy(isBusy) {
    if (this.isBusy === isBusy) return;
    const hadFocus = document.activeElement === this.stop;
    this.isBusy = isBusy;
    this.#adapt();
    if (hadFocus) this.focus();
  }

  /** The text that is typed as a new message, not that of an edit. */
  get draft() {
    return this.edited ? this.kept : this.input.value;
  }

  /**
   * The edit as far as it changes the message; else null.
   * @returns {Revision | null}
   */
  get revision() {
    const { edited, input } = this;
    if (!edited || input.value === this.#original) return null;
    return { message_id: edited.message_id, text: input.value };
  }

  /**
   * Put a text back to be edited; text that is being typed stays before it.
   * @param {string} text
   */
  take(text) {
    this.#keepEdit();
    this.input.value = joinTexts(this.input.value, text);
    this.#change();
    this.input.focus();
  }

  /**
   * Put the beginning of a message before what is typed, which continues it.
   * @param {string} text
   */
  begin(text) {
    this.input.value = text + this.input.value;
    this.#change();
    this.input.focus();
  }

  /**
   * Keep a text that could not be sent behind what is typed; `hint` says why. An edit goes on.
   * @param {string} text
   * @param {string} hint
   */
  keep(text, hint) {
    if (this.#isComposing) {
      const keep = () => this.keep(text, hint);
      return this.input.addEventListener("compositionend", keep, { once: true });
    }
    if (this.edited) this.kept = joinTexts(this.kept, text);
    else this.#append(text);
    this.#change();
    this.setHint(hint, true);
    if (!isField(document.activeElement)) this.input.focus();
  }

  /**
   * The cursor stays where somebody may be typing.
   * @param {string} text
   */
  #append(text) {
    const { input } = this;
    const { selectionStart: start, selectionEnd: end, value } = input;
    input.value = joinTexts(value, text);
    if (value) input.setSelectionRange(start, end);
  }

  /**
   * Edit `text`: what is sent then replaces `message`.
   * @param {string} text
   * @param {Message} message
   */
  beginEdit(text, message) {
    if (this.edited?.message_id === message.message_id) return this.input.focus();
    this.#edit(text, message, text);
    this.input.focus();
  }

  /**
   * Go on with an edit of `message` that was left or refused; `text` is what it had become.
   * @param {string} text
   * @param {Message} message
   */
  reopenEdit(text, message) {
    this.#edit(text, message, "");
    this.focus();
  }

  /**
   * @param {string} text
   * @param {Message} message
   * @param {string} original
   */
  #edit(text, message, original) {
    this.#keepEdit();
    this.kept = this.input.value;
    this.edited = message;
    this.#original = original;
    this.editing.hidden = false;
    this.input.value = text;
    this.#change();
  }

  /** Leave the edit and restore the text from before. */
  endEdit() {
    this.#empty();
    this.input.focus();
  }

  /** Leave the edit; its text, if it was changed, becomes part of the draft. */
  #keepEdit() {
    const { revision } = this;
    if (!this.edited) return;
    this.#empty();
    if (revision) this.input.value = joinTexts(this.input.value, revision.text);
  }

  #empty() {
    this.input.value = this.edited ? this.kept : "";
    this.edited = null;
    this.editing.hidden = true;
    this.#change();
  }

  /**
   * Show another draft; nothing is being edited any more.
   * @param {string} text
   */
  replace(text) {
    this.edited = null;
    this.editing.hidden = true;
    this.setHint("");
    this.input.value = text;
    this.#change();
  }

  /** Behave as if the text had been typed. */
  #change() {
    this.input.dispatchEvent(new Event("input"));
  }

  /** @param {string} text */
  setHint(text, isBad = false) {
    this.hint.textContent = text;
    this.hint.classList.toggle("bad", isBad);
  }

  /** While a reply is written, Stop is shown; Send is shown only beside text, which it queues. */
  #adapt() {
    const isEmpty = isBlank(this.input.value);
    this.stop.hidden = !this.isBusy;
    this.send.hidden = this.isBusy && isEmpty;
    this.urgent.hidden = !this.isBusy || isEmpty;
    if (!CSS.supports("field-sizing", "content")) {
      this.input.style.height = "auto";
      this.input.style.height = `${this.input.scrollHeight}px`;
    }
  }

  /** @param {Event} event */
  #submit(event) {
    event.preventDefault();
    this.#send(false);
  }

  /** @param {boolean} isUrgent */
  #send(isUrgent) {
    const { edited } = this;
    const text = this.input.value;
    if (isBlank(text)) return;
    this.setHint("");
    const detail = { text, isUrgent, edited };
    if (this.dispatchEvent(new CustomEvent("submit", { detail, cancelable: true }))) this.#empty();
    this.input.focus();
  }

  /**
   * Escape leaves an edit or stops the reply, unless the focus is in another field; Enter sends
   * unless it makes a new line: then Ctrl or ⌘ with Enter does; the up arrow edits.
   * @param {KeyboardEvent} event
   */
  press(event) {
    const isHere = event.target === this.input;
    if (event.key === "Escape") return (isHere || !isTyping(event)) && this.#escape();
    if (!isHere || event.shiftKey || event.altKey) return false;
    const isCommand = event.ctrlKey || event.metaKey;
    const isUp = event.key === "ArrowUp" && !this.input.value && !isCommand;
    if (!isUp && (event.key !== "Enter" || (makesLine() && !isCommand))) return false;
    event.preventDefault();
    if (isUp) this.dispatchEvent(new Event("edit"));
    else this.#send(isCommand && this.isBusy && !makesLine());
    return true;
  }

  #escape() {
    if (this.edited) this.endEdit();
    else if (this.isBusy) this.#stop();
    return true;
  }

  #stop() {
    this.dispatchEvent(new Event("stop"));
  }
}

function canHover() {
  return matchMedia("(hover: hover)").matches;
}

/**
 * Whether Enter makes a new line: the user's own setting decides, else the device. An on-screen
 * keyboard has no other way to a new line.
 */
function makesLine() {
  if (data.enter) return data.enter === "newline";
  return matchMedia("(hover: none) and (pointer: coarse)").matches;
}
