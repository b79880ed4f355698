/** The cursor of a session's runs: how far they have been shown, by the numbers of their frames. */

const MAX_GAPS = 3;

export class RunCursor {
  #ended = new Set();
  #gaps = 0;

  /**
   * `run`: the run that is shown, `{run_id, run_number, epoch, seq, message_id}`, or null.
   * @param {Run | null} run
   */
  constructor(run) {
    this.run = run;
  }

  /** The fields of `resume` that name the run. */
  get position() {
    if (!this.run) return {};
    const { run_id, epoch, seq } = this.run;
    return { run_id, epoch, seq };
  }

  /** @param {string} run_id */
  hasEnded(run_id) {
    return this.#ended.has(run_id);
  }

  /**
   * Compare a frame of a run with what is shown: "old", "next" or "gap".
   * @param {At} at
   * @returns {"old" | "next" | "gap"}
   */
  placeOf({ run_id, run_number, epoch, seq }) {
    const run = this.run;
    if (this.hasEnded(run_id)) return "old";
    if (!run) return seq === 1 ? "next" : "gap";
    if (run.run_id !== run_id) return run_number < run.run_number ? "old" : "gap";
    if (epoch !== run.epoch) return epoch < run.epoch ? "old" : seq === 1 ? "next" : "gap";
    if (seq <= run.seq) return "old";
    return seq === run.seq + 1 ? "next" : "gap";
  }

  /**
   * Whether a snapshot is older than what is shown.
   * @param {Omit<At, "message_id" | "run_number">} at
   */
  isBehind({ run_id, epoch, seq }) {
    if (this.hasEnded(run_id)) return true;
    const run = this.run;
    if (run?.run_id !== run_id) return false;
    return epoch < run.epoch || (epoch === run.epoch && seq < run.seq);
  }

  /** @param {At} at */
  moveTo({ run_id, run_number, epoch, seq, message_id }) {
    this.run = { run_id, run_number, epoch, seq, message_id };
    this.#gaps = 0;
  }

  /**
   * Start the run anew in a later epoch; returns whether that changed anything.
   * @param {{ run_id: string, epoch: number }} at
   */
  restart({ run_id, epoch }) {
    if (this.run?.run_id !== run_id || epoch <= this.run.epoch) return false;
    this.run = { ...this.run, epoch, seq: 0 };
    return true;
  }

  /**
   * Note that a run has ended: later frames of it are old.
   * @param {string} run_id
   */
  end(run_id) {
    this.#ended.add(run_id);
    if (this.run?.run_id === run_id) this.run = null;
    this.#gaps = 0;
  }

  /** How to fill a gap: "resume", or "reload" after that has failed several times. */
  repair() {
    this.#gaps += 1;
    if (this.#gaps <= MAX_GAPS) return "resume";
    this.#gaps = 0;
    return "reload";
  }
}
