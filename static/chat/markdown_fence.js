/** A block of code that is still open: its lines go straight into a text node. */
export class OpenFence {
  #isInLine = false;

  /** `line` opens the block; `code` takes its text. */
  constructor(line, code) {
    const [, indent, marks] = /^( *)(`+|~+)/.exec(line);
    this.code = code;
    this.indent = new RegExp(`^ {0,${indent.length}}`);
    this.end = new RegExp(`^ {0,3}${marks[0]}{${marks.length},}[ \\t]*$`);
    this.start = new RegExp(`^ {0,3}${marks[0]}*[ \\t]*$`);
    this.isClosed = false;
  }

  /** Take in what belongs to the block; the rest is given back. */
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
    if (taken) this.code.appendData(taken);
    return text.slice(place);
  }
}
