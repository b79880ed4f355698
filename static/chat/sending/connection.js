/**
 * One WebSocket that is kept connected.
 *
 * Dispatches `state` (idle, connecting, open, waiting, offline, signed_out, refused) and `frame`
 * events.
 */

const BASE_MS = 1_000;
const CAP_MS = 30_000;
const STABLE_MS = 10_000;
const PROBE_MS = 3_000;
const OPEN_MS = 15_000;
const TOO_FAST = 4429;
const RESTART = 4012;
/** @typedef {"idle" | "connecting" | "open" | "waiting" | "offline" | "signed_out" | "refused"} ConnectionState */

/** @type {Record<number, ConnectionState>} */
const FINAL_STATES = { 4001: "signed_out", 4401: "signed_out", 4403: "refused" };

export class Connection extends /** @type {Emitter<{ frame: ServerFrame, state: null }>} */ (
  EventTarget
) {
  /** @type {ConnectionState} */
  state = "idle";
  /** @type {WebSocket | null} */
  socket = null;
  /** @type {WebSocket | null} */
  next = null;
  timer = 0;
  silence = 0;

  /**
   * `isOwn(userId)` tells whether a socket belongs to the user of the page.
   * @param {string} url
   * @param {(user_id: string) => boolean} isOwn
   */
  constructor(url, isOwn) {
    super();
    this.url = url;
    this.isOwn = isOwn;
    this.retryAt = 0;
    this.attempts = 0;
    this.openedAt = 0;
    this.heartbeatMs = CAP_MS;
    this.busyMs = 0;
  }

  /** Connect, and stay connected from now on. */
  start() {
    if (this.state === "idle") this.#connect();
  }

  /**
   * Close the socket without connecting again, for example when the page goes into the back/forward
   * cache.
   */
  stop() {
    this.#drop();
    this.#become("idle");
  }

  /** Connect now instead of after the pause; a socket that seems open must answer a ping. */
  wake() {
    if (this.state === "open") this.#probe();
    else if (this.state === "waiting" || this.state === "offline") this.#connect();
  }

  /** Reconnect after a pause: the session could not be followed on this socket. */
  retry() {
    this.#lose(0);
  }

  /**
   * Send a frame; returns false if there is no open socket.
   * @param {ClientFrame} frame
   */
  send(frame) {
    if (this.state !== "open" || this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(frame));
    return true;
  }

  #connect() {
    this.#drop();
    this.#become("connecting");
    this.#listen(new WebSocket(this.url));
    this.#expect(OPEN_MS);
  }

  /** @param {WebSocket} socket */
  #listen(socket) {
    this.socket = socket;
    socket.onmessage = (event) => this.#receive(JSON.parse(event.data));
    socket.onclose = (event) => this.#lose(event.code);
  }

  /** Close the socket and ignore its later events. */
  #drop() {
    clearTimeout(this.timer);
    clearTimeout(this.silence);
    discard(this.socket);
    discard(this.next);
    this.socket = null;
    this.next = null;
  }

  /** @param {ConnectionState} state */
  #become(state) {
    this.state = state;
    this.dispatchEvent(new Event("state"));
  }

  /** @param {ServerFrame} frame */
  #receive(frame) {
    this.#expect(2 * this.heartbeatMs);
    if (frame.type === "error" && this.state === "connecting") {
      this.busyMs = (frame.metadata.retry_after ?? 0) * 1_000;
      return;
    }
    if (frame.type === "status") {
      const at = frame.metadata;
      if (at.event === "connected" && !this.#open(at)) return;
      if (at.event === "draining") this.#leave(at.reconnect_after_ms);
    }
    this.dispatchEvent(new CustomEvent("frame", { detail: frame }));
  }

  /**
   * Returns false if somebody else has signed in meanwhile: nothing may be sent in their name.
   * @param {Metadata<"connected">} metadata
   */
  #open(metadata) {
    if (!this.isOwn(metadata.user_id)) {
      this.#drop();
      this.#become("signed_out");
      return false;
    }
    this.heartbeatMs = metadata.heartbeat_s * 1_000;
    this.#expect(2 * this.heartbeatMs);
    this.openedAt = Date.now();
    this.#become("open");
    return true;
  }

  /**
   * Treat the socket as dead if nothing arrives within `ms` milliseconds.
   * @param {number} ms
   */
  #expect(ms) {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => this.#lose(0), ms);
  }

  #probe() {
    this.send({ type: "ping", metadata: { ts: Date.now() } });
    this.#expect(PROBE_MS);
  }

  /**
   * The server is about to stop: keep using the socket until a new one is open.
   * @param {number} ms
   */
  #leave(ms) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#lookAround(), ms * (1 + Math.random()));
  }

  #lookAround() {
    const socket = new WebSocket(this.url);
    this.next = socket;
    socket.onmessage = (event) => this.#moveTo(socket, event);
    socket.onclose = () => this.#leave(BASE_MS);
  }

  /**
   * The new socket has received its first frame: switch to it without a gap.
   * @param {WebSocket} socket
   * @param {MessageEvent} event
   */
  #moveTo(socket, event) {
    const frame = JSON.parse(event.data);
    // A busy server refuses the new socket: keep the old one until it is closed.
    if (frame.type === "error") return;
    this.next = null;
    this.#drop();
    this.#listen(socket);
    this.#receive(frame);
  }

  /** @param {number} code */
  #lose(code) {
    this.#drop();
    if (code in FINAL_STATES) {
      this.#become(FINAL_STATES[code]);
      return;
    }
    if (this.openedAt && Date.now() - this.openedAt > STABLE_MS) this.attempts = 0;
    this.openedAt = 0;
    this.#wait(this.#pause(code));
  }

  /**
   * Exponential backoff with full jitter, so that clients do not reconnect at the same time; a
   * server that is busy says when.
   * @param {number} code
   */
  #pause(code) {
    const busyMs = this.busyMs;
    this.busyMs = 0;
    if (busyMs) return busyMs * (1 + Math.random() / 2);
    if (code === TOO_FAST) return CAP_MS * (0.5 + Math.random() / 2);
    if (code === RESTART) return BASE_MS * Math.random();
    return Math.random() * Math.min(CAP_MS, BASE_MS * 2 ** this.attempts++);
  }

  /** @param {number} ms */
  #wait(ms) {
    this.retryAt = Date.now() + ms;
    this.timer = setTimeout(() => this.#connect(), ms);
    this.#become(navigator.onLine ? "waiting" : "offline");
  }
}

/** @param {WebSocket | null} socket */
function discard(socket) {
  if (!socket) return;
  socket.onmessage = null;
  socket.onclose = null;
  socket.close();
}

/**
 * Wake `connection` on events of the page, and stop it when the page is put away.
 * @param {Connection} connection
 */
export function followPage(connection) {
  addEventListener("online", () => connection.wake());
  addEventListener("offline", () => connection.wake());
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") connection.wake();
  });
  document.addEventListener("resume", () => connection.wake());
  addEventListener("pagehide", () => connection.stop());
}
