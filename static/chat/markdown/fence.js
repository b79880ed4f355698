/** Characters of code per layout box; each new token lays out the whole last box. */
const CHUNK = 4_096;

/** A code block that is still open: its text is appended to text nodes without parsing. */
export class OpenFence {
  #isInLine = false;

  /**
   * `line` opens the block; `code` is the element for its text.
   * @param {string} line
   * @param {HTMLElement} code
   */
  constructor(line, code) {
    const [, indent, marks] = /** @type {RegExpExecArray} */ (/^( *)(`+|~+)/.exec(line));
    this.code = code;
    this.text = document.createTextNode("");
    code.replaceChildren(this.text);
    this.indent = new RegExp(`^ {0,${indent.length}}`);
    this.end = new RegExp(`^ {0,3}${marks[0]}{${marks.length},}[ \\t]*$`);
    this.start = new RegExp(`^ {0,3}${marks[0]}*[ \\t]*$`);
    this.isClosed = false;
  }

  /**
   * Append the text that belongs to the block; returns the rest.
   * @param {string} text
   */
  take(text) {
    let taken = "";
    let place = 0;
    while (place < text.length && !this.isClosed) {
      const end = text.indexOf("\n", place);
      const line = text.slice(place, end < 0 ? text.length : end);
      if (end < 0 && !this.#isInLine && this.start.test(line)) break;
      if (!this.#isInLine && this.end.test(line)) this.isClosed = true;
      else taken += this.#isInLine ? line : line.replace(this.indent, "");
      if (end >= 0 && !this.isClosed) taken += "\n";
      this.#isInLine = end < 0;
      place = end < 0 ? text.length : end + 1;
    }
    if (taken) this.#append(taken);
    return text.slice(place);
  }

  /**
   * Long code is split into elements of whole lines.
   * @param {string} text
   */
  #append(text) {
    const cut = this.text.length < CHUNK ? -1 : text.indexOf("\n");
    this.text.appendData(cut < 0 ? text : text.slice(0, cut + 1));
    if (cut < 0) return;
    if (this.text.parentNode === this.code) this.#wrap(this.text);
    this.text = document.createTextNode("");
    this.code.append(this.text);
    this.#wrap(this.text);
    this.#append(text.slice(cut + 1));
  }

  /** @param {Text} text */
  #wrap(text) {
    const piece = document.createElement("span");
    piece.className = "piece";
    text.replaceWith(piece);
    piece.append(text);
  }
}
