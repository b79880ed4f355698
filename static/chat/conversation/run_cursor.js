/** How far the runs of a session have been shown, by the numbers of their frames. */

const MAX_GAPS = 3;

export class RunCursor {
  #ended = new Set();
  #gaps = 0;

  /**
   * `run`: the one that is shown, `{run_id, run_number, epoch, seq, message_id}`, or null.
   * @param {Run | null} run
   */
  constructor(run) {
    this.run = run;
  }

  /** What `resume` says of it. */
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
   * Where a frame of a run stands against what is shown: "old", "next" or "gap".
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
   * Whether a snapshot tells less than is shown.
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
   * It begins anew in a later epoch; whether that is news.
   * @param {{ run_id: string, epoch: number }} at
   */
  restart({ run_id, epoch }) {
    if (this.run?.run_id !== run_id || epoch <= this.run.epoch) return false;
    this.run = { ...this.run, epoch, seq: 0 };
    return true;
  }

  /**
   * Nothing more comes of a run.
   * @param {string} run_id
   */
  end(run_id) {
    this.#ended.add(run_id);
    if (this.run?.run_id === run_id) this.run = null;
    this.#gaps = 0;
  }

  /** What mends a gap: "resume", and where that has not helped "reload". */
  repair() {
    this.#gaps += 1;
    if (this.#gaps <= MAX_GAPS) return "resume";
    this.#gaps = 0;
    return "reload";
  }
}
