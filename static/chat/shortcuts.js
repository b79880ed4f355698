/** Keys that work everywhere on the page, and the list of them. */

const TYPING = "input, textarea, select, [contenteditable]";

export class Shortcuts {
  constructor({ dialog, newChat }) {
    Object.assign(this, { dialog, newChat });
    document.addEventListener("keydown", (event) => this.#press(event));
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  }

  show() {
    if (!this.dialog.open) this.dialog.showModal();
  }

  #press(event) {
    const isCommand = event.ctrlKey || event.metaKey;
    if (isCommand && event.shiftKey && event.code === "KeyO") {
      event.preventDefault();
      this.newChat.click();
    } else if (event.key === "?" && !isCommand && isFree(event.target)) {
      event.preventDefault();
      this.show();
    }
  }
}

/** In an empty box a question mark may begin a question: only elsewhere it is a key. */
function isFree(element) {
  return !element.closest?.(TYPING);
}
