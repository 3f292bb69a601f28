// @ts-check
/**
 * trunk/1 over a WebSocket: streams that survive their connection.
 *
 *     const trunk = new Trunk({ connect, onstate });
 *     const shell = trunk.attach({ attachment, kind: "pty", tag: "main", start: {} }, {
 *       ondata(bytes, place, done) { terminal.write(bytes, done); },
 *       onclosed(ending) { ... },
 *     });
 *     shell.write(new TextEncoder().encode("ls\n"));
 *
 * Theory of operation
 * -------------------
 * `Trunk` is a thin shell: one WebSocket at a time, one timer, and the decision when to try again.
 * What is said on the wire is up to `Connection` (one link) and `Attachment` (one stream, through
 * all links), which do no I/O.  A link that broke changes nothing for an attachment but the time:
 * the next link goes on at the exact byte, in both directions.
 *
 * Every try begins with `connect()`, which gets a fresh one-use ticket.  It may throw a `Final`
 * when there is no point in trying again.
 */

import { Attachment } from "./trunk/attachment.js";
import { delayBefore, nextAttempt } from "./trunk/backoff.js";
import { Connection } from "./trunk/connection.js";
import { CLOSE_REASONS, ProtocolError } from "./trunk/reasons.js";
import { Growth } from "./trunk/windows.js";

export { Attachment, ProtocolError };

/** The name of trunk/1 as a WebSocket subprotocol ("/" is not allowed in one). */
export const SUBPROTOCOL = "trunk.1";
const SOFTWARE = "trunkline-web/0.1";
/** Milliseconds in which a WebSocket must open and say HELLO. */
const OPEN_PATIENCE = 15_000;
/** Bytes handed to the WebSocket ahead of the network: what a Ctrl-C may have to wait for. */
const AHEAD = 128 * 1024;
/** The same for control frames. */
const CONTROL_AHEAD = 1024 * 1024;
/** Milliseconds after which to look again whether the WebSocket has sent what it has. */
const DRAIN_INTERVAL = 20;
/** A page may close a WebSocket with 1000 or a code of its own only; this says "protocol error". */
const CLOSE_PROTOCOL_ERROR = 4002;

/** There is no point in trying again. */
export class Final extends Error {
  /**
   * @param {string} reason one word
   * @param {string} message for the user
   */
  constructor(reason, message) {
    super(message);
    this.name = "Final";
    this.reason = reason;
  }
}

/**
 * What the link does:
 * - `idle`: nothing is attached, so there is no link
 * - `connecting`: a ticket is fetched, or the WebSocket opens
 * - `open`: the peer said HELLO
 * - `waiting`: the next try is at `retryAt` (milliseconds on the clock `now`), because of `reason`
 * - `closed`: for good, because of `reason`
 * @typedef {{name: "idle" | "connecting" | "open" | "waiting" | "closed", reason: string,
 *   message: string, retryAt: number | null}} LinkState
 */
/**
 * What the shell needs of the world; tests bring their own.
 * @typedef {object} World
 * @property {(url: string, protocols: string[]) => WebSocket} openWebSocket
 * @property {(callback: () => void, delay: number) => any} setTimer
 * @property {(timer: any) => void} clearTimer
 * @property {() => number} now milliseconds, only forward
 * @property {() => number} random in [0, 1)
 */

/** @type {World} */
const BROWSER = {
  openWebSocket: (url, protocols) => new WebSocket(url, protocols),
  setTimer: (callback, delay) => setTimeout(callback, delay),
  clearTimer: (timer) => clearTimeout(timer),
  now: () => performance.now(),
  random: () => Math.random(),
};

export class Trunk {
  /**
   * @param {object} options
   * @param {() => Promise<{url: string, protocols: string[]}>} options.connect called before every
   *   try; `protocols` are `trunk.1` and `trunk.ticket.<ticket>`
   * @param {(state: LinkState) => void} [options.onstate]
   * @param {World} [options.world]
   */
  constructor({ connect, onstate, world = BROWSER }) {
    this._connect = connect;
    this._onstate = onstate ?? (() => {});
    this._world = world;
    /** @type {Set<Attachment>} */
    this._attachments = new Set();
    this._growth = new Growth();
    /** @type {LinkState} */
    this.state = { name: "idle", reason: "", message: "", retryAt: null };
    /** @type {Connection | null} */
    this._connection = null;
    /** @type {WebSocket | null} */
    this._socket = null;
    this._try = 0; // what an earlier try still does is ignored
    this._attempt = 0;
    /** @type {number | null} */
    this._answeredAt = null;
    /** @type {number | null} seconds */
    this._retryAfter = null;
    /** @type {any} */
    this._timer = null;
    /** @type {any} */
    this._pumpTimer = null;
    this._pumping = false;
    this._counts = { links: 0, failures: 0, bytesSent: 0, bytesReceived: 0 };
  }

  // ---------------------------------------------------------------- for the user

  /**
   * Attach to a stream, now or as soon as there is a link.
   * @param {import("./trunk/types.js").AttachOptions} options
   * @param {import("./trunk/types.js").Handlers} handlers
   * @returns {Attachment}
   */
  attach(options, handlers) {
    if (this.state.name === "closed") throw new Error(`closed: ${this.state.reason}`);
    const attachment = new Attachment(options, {
      ...handlers,
      onattached: (attached) => {
        this._answeredAt ??= this._world.now();
        handlers.onattached?.(attached);
      },
    }, this._growth);
    this._attachments.add(attachment);
    if (this._connection !== null) this._connection.attach(attachment);
    else if (this.state.name === "idle") this._begin();
    return attachment;
  }

  /** Give an attachment up. @param {Attachment} attachment */
  detach(attachment) {
    this._attachments.delete(attachment);
    if (this._connection) this._connection.detach(attachment);
    else attachment.giveUp();
  }

  /** Do not wait for the next try. */
  retryNow() {
    if (this.state.name === "waiting") this._begin();
  }

  /**
   * There is a hint that the link may be broken, or that it could be mended: the machine woke up,
   * the network came back, the page is looked at again.
   */
  hint() {
    if (this.state.name === "waiting") this._begin();
    else if (this.state.name === "open") {
      this._connection?.probe(this._world.now());
      this._schedule();
    }
  }

  /** Break the link, as a bad network would; for tests. */
  cut() {
    if (this._connection !== null) this._lose("connection_lost", "cut");
  }

  /** Close for good.  Attachments are given up. */
  close() {
    for (const attachment of this._attachments) this.detach(attachment);
    this._pump();
    this._leave(1000, "detached");
    this._settle({ name: "closed", reason: "detached", message: "", retryAt: null });
  }

  /**
   * A snapshot: states, offsets, and counters in bytes; the round trip in milliseconds.  `growth`:
   * what the windows of all attachments have grown by.
   */
  statistics() {
    return {
      state: this.state.name,
      roundTrip: this._connection?.roundTrip ?? null,
      links: this._counts.links,
      failures: this._counts.failures,
      bytesSent: this._counts.bytesSent + (this._connection?.bytesSent ?? 0),
      bytesReceived: this._counts.bytesReceived + (this._connection?.bytesReceived ?? 0),
      unsent: this._socket?.bufferedAmount ?? 0,
      growth: this._growth.taken,
      attachments: [...this._attachments].map((attachment) => attachment.statistics()),
    };
  }

  // ---------------------------------------------------------------- opening

  /** Try to connect. */
  async _begin() {
    this._clearTimer();
    const attempt = ++this._try;
    this._settle({ ...this.state, name: "connecting", retryAt: null });
    this._timer = this._world.setTimer(() => this._lose("connection_lost", ""), OPEN_PATIENCE);
    try {
      const { url, protocols } = await this._connect();
      if (attempt !== this._try) return;
      this._open(this._world.openWebSocket(url, protocols), attempt);
    } catch (error) {
      if (attempt !== this._try) return;
      const message = error instanceof Error ? error.message : String(error);
      if (error instanceof Final) this._fail(error.reason, message);
      else this._lose("connection_lost", message);
    }
  }

  /**
   * @param {WebSocket} socket
   * @param {number} attempt
   */
  _open(socket, attempt) {
    const current = () => attempt === this._try && this._socket === socket;
    this._socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      if (current()) this._greet(socket);
    };
    socket.onmessage = ({ data }) => {
      if (current()) this._receive(data);
    };
    socket.onclose = ({ reason }) => {
      if (!current()) return;
      // Browsers say nothing about a refused upgrade, and nothing but this about a broken pipe.
      const word = Object.hasOwn(CLOSE_REASONS, reason) ? reason : "connection_lost";
      if (CLOSE_REASONS[word] === "stop" && this._needed) this._fail(word, "");
      else this._lose(word, "");
    };
  }

  /** @param {WebSocket} socket */
  _greet(socket) {
    if (socket.protocol !== SUBPROTOCOL) {
      this._fail("protocol_error", "the server does not speak trunk/1");
      return;
    }
    /** Act when the frames that came together have been seen. @param {() => void} act */
    const soon = (act) =>
      queueMicrotask(() => {
        if (this._connection === connection) act();
      });
    const connection = new Connection({
      software: SOFTWARE,
      now: this._world.now(),
      onoutput: () => this._wake(),
      onretry: (reason, message) => soon(() => this._lose(reason, message)),
      ongoaway: ({ reason, message, retryAfter }) => {
        this._retryAfter = retryAfter;
        if (CLOSE_REASONS[reason] === "stop") soon(() => this._fail(reason, message));
      },
    });
    this._connection = connection;
    for (const attachment of this._attachments) {
      if (!attachment.ended) connection.attach(attachment);
    }
    this._pump();
  }

  // ---------------------------------------------------------------- running

  /** @param {unknown} data */
  _receive(data) {
    const connection = this._connection;
    if (connection === null) return;
    const greeted = connection.peer !== null;
    try {
      if (!(data instanceof ArrayBuffer)) throw new ProtocolError("a text message");
      connection.receive(new Uint8Array(data), this._world.now());
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      connection.goAway("protocol_error", error.message);
      this._pump();
      this._fail("protocol_error", error.message);
      return;
    }
    if (connection !== this._connection) return; // a handler has closed us
    if (!greeted && connection.peer !== null) {
      this._counts.links += 1;
      this._settle({ name: "open", reason: "", message: "", retryAt: null });
    }
    if (connection.peer !== null) this._schedule();
  }

  /** Send soon: what is asked for in one go should leave in one message. */
  _wake() {
    if (this._pumping) return;
    this._pumping = true;
    queueMicrotask(() => {
      this._pumping = false;
      this._pump();
    });
  }

  /**
   * Hand to the WebSocket what there is, but not much more data than it can send: what waits here
   * can still be overtaken by control frames.
   */
  _pump() {
    const [connection, socket] = [this._connection, this._socket];
    if (connection === null || socket === null || socket.readyState !== 1) return;
    while (connection.hasOutput) {
      const budget = Math.max(AHEAD - socket.bufferedAmount, 0);
      if (budget === 0 && !(connection.hasControl && socket.bufferedAmount < CONTROL_AHEAD)) {
        this._pumpTimer ??= this._world.setTimer(() => {
          this._pumpTimer = null;
          this._pump();
        }, DRAIN_INTERVAL);
        return;
      }
      const frames = connection.nextSend(budget);
      if (frames.length === 0) return;
      socket.send(join(frames));
    }
  }

  /** Set the timer for the next `tick`. */
  _schedule() {
    if (this._connection === null) return;
    this._clearTimer();
    const delay = Math.max(this._connection.nextTick - this._world.now(), 0);
    this._timer = this._world.setTimer(() => {
      if (this._connection?.tick(this._world.now())) this._schedule();
      else this._lose("connection_lost", "nothing has come for a while");
    }, delay);
  }

  // ---------------------------------------------------------------- ending

  /** Whether anything is left for which a link is needed. */
  get _needed() {
    return [...this._attachments].some((attachment) => !attachment.ended);
  }

  /**
   * The link is lost, or this try has failed; try again later.
   * @param {string} reason
   * @param {string} message
   */
  _lose(reason, message) {
    if (this.state.name === "closed" || this.state.name === "waiting") return;
    const life = this._answeredAt === null ? null : this._world.now() - this._answeredAt;
    this._leave(1000, "");
    this._counts.failures += 1;
    if (!this._needed) {
      this._settle({ name: "idle", reason, message, retryAt: null });
      return;
    }
    if (life !== null) this._attempt = nextAttempt(this._attempt, life);
    const delay = delayBefore(this._attempt, this._world.random(), this._retryAfter);
    if (life === null) this._attempt = nextAttempt(this._attempt, null);
    this._retryAfter = null;
    this._settle({ name: "waiting", reason, message, retryAt: this._world.now() + delay });
    this._timer = this._world.setTimer(() => this._begin(), delay);
  }

  /**
   * Close for good.
   * @param {string} reason
   * @param {string} message
   */
  _fail(reason, message) {
    if (this.state.name === "closed") return;
    this._leave(reason === "protocol_error" ? CLOSE_PROTOCOL_ERROR : 1000, reason);
    this._settle({ name: "closed", reason, message, retryAt: null });
    for (const attachment of this._attachments) attachment.fail({ refused: false, reason, message });
  }

  /**
   * Drop the WebSocket.
   * @param {number} code
   * @param {string} reason
   */
  _leave(code, reason) {
    this._try += 1;
    this._clearTimer();
    if (this._pumpTimer !== null) this._world.clearTimer(this._pumpTimer);
    this._pumpTimer = null;
    this._answeredAt = null;
    const [connection, socket] = [this._connection, this._socket];
    this._connection = null;
    this._socket = null;
    if (connection !== null) {
      this._counts.bytesSent += connection.bytesSent;
      this._counts.bytesReceived += connection.bytesReceived;
      connection.unbindAll();
    }
    socket?.close(code, reason);
  }

  _clearTimer() {
    if (this._timer !== null) this._world.clearTimer(this._timer);
    this._timer = null;
  }

  /** @param {LinkState} state */
  _settle(state) {
    this.state = state;
    this._onstate(state);
  }
}

/** @param {Uint8Array[]} frames @returns {Uint8Array<ArrayBuffer>} */
function join(frames) {
  const whole = new Uint8Array(frames.reduce((size, frame) => size + frame.length, 0));
  let position = 0;
  for (const frame of frames) {
    whole.set(frame, position);
    position += frame.length;
  }
  return whole;
}
