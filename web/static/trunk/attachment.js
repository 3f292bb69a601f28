// @ts-check
/**
 * One client on one stream (trunk/1 § 5), without I/O.
 *
 * Theory of operation
 * -------------------
 * An attachment outlives links.  `Connection` binds it to a stream id: it sends ATTACH, and takes
 * the frames of that id until the link is lost (`unbind`) or the attachment ends.  What is known of
 * the stream decides what ATTACH asks for:
 *
 * - nothing yet: attach afresh, start the stream where `start` says so, take output from the oldest
 *   byte.  Input typed so far is numbered from where the owner is (`accepted`);
 * - its name: `resume` at the next byte that is missing, input again from `accepted`.
 *
 * Output goes to the handlers in order, each piece with a `done` to be called once it has been
 * consumed: that alone moves the credit.  A piece is either replay or not, never both.  A `done`
 * that comes after the attachment has begun afresh counts for a past that is gone: it is ignored.
 *
 * Handlers are called from within `receive...`; they may call any method of the attachment.
 */

import { encodeControl, TYPE, TYPE_NAMES } from "./frames.js";
import { CLOSE_REASONS, ProtocolError, REFUSALS } from "./reasons.js";
import { SignalLog } from "./signals.js";
import { Growth, InputBuffer, OutputWindow } from "./windows.js";

const INPUT = 0;
const MAIN = 1;
/** Bytes of one screen. */
const MAX_SCREEN = 1024 * 1024;
/** @type {Readonly<Record<string, readonly number[]>>} */
const OUTPUT_CHANNELS = Object.freeze({ pty: [1], exec: [1, 2], file: [1], vnc: [1], tcp: [1] });

/**
 * Where an attachment is in its life, and which frames may come there.  What comes for a stream id
 * that an attachment has left never gets here: `Connection` knows it is late.
 * @typedef {"unbound" | "requested" | "open" | "ended"} State
 */
/** @type {Readonly<Record<State, readonly number[]>>} */
const LEGAL = Object.freeze({
  unbound: [],
  requested: [TYPE.ATTACHED, TYPE.REFUSED, TYPE.CLOSED],
  open: [TYPE.CREDIT, TYPE.GAP, TYPE.SCREEN, TYPE.FIN, TYPE.EXIT, TYPE.STOP, TYPE.CLOSED],
  ended: [],
});

/** @typedef {import("./types.js").AttachOptions} AttachOptions */
/** @typedef {import("./types.js").Binding} Binding */
/** @typedef {import("./types.js").Ending} Ending */
/** @typedef {import("./types.js").Exit} Exit */
/** @typedef {import("./types.js").Handlers} Handlers */

export class Attachment {
  /**
   * @param {AttachOptions} options
   * @param {Handlers} handlers
   * @param {Growth} [growth] what the windows of the trunk share
   */
  constructor(options, handlers, growth = new Growth()) {
    if (!/^[A-Za-z0-9_-]{16,64}$/.test(options.attachment)) {
      throw new RangeError("an attachment id has 16 to 64 characters of A-Z a-z 0-9 _ -");
    }
    if (!/^[A-Za-z0-9._-]{1,64}$/.test(options.tag)) {
      throw new RangeError("a tag has 1 to 64 characters of A-Z a-z 0-9 . _ -");
    }
    if (!Object.hasOwn(OUTPUT_CHANNELS, options.kind)) {
      throw new RangeError(`there is no kind of stream called ${options.kind}`);
    }
    this.options = { mode: "control", replay: "all", ...options };
    /** @type {State} */
    this.state = "unbound";
    /** @type {string | null} the stream's own name, once it is known */
    this.stream = null;
    /** @type {Exit | null} */
    this.exit = null;
    this.live = 0;
    this.input = new InputBuffer();
    /** @type {Map<number, OutputWindow>} */
    this.outputs = new Map(
      OUTPUT_CHANNELS[options.kind].map((channel) => {
        return [channel, new OutputWindow(options.window, undefined, growth)];
      }),
    );
    this._handlers = handlers;
    /** @type {Binding | null} */
    this._link = null;
    this._everAttached = false;
    this._generation = 0;
    this._space = 0; // counts fresh beginnings: offsets of different spaces do not compare
    this._columns = options.columns ?? 0;
    this._rows = options.rows ?? 0;
    this._sentSize = [0, 0];
    this._signals = new SignalLog();
    /** @type {Uint8Array[] | null} what has come of a screen that was announced */
    this._screen = null;
    this._counts = { attached: 0, resumed: 0, gaps: 0, skipped: 0, received: 0 };
  }

  // ---------------------------------------------------------------- for the user

  /** Whether there is anything left to wait for. */
  get ended() {
    return this.state === "ended" || this.exit !== null;
  }

  /**
   * Send input: all of it or none.  It is kept until the owner has taken it over, and sent exactly
   * once whatever happens to links.
   * @param {Uint8Array} bytes must not be changed afterwards
   * @returns {boolean} false: view only, ended, or too much is waiting
   */
  write(bytes) {
    if (this.options.mode === "view" || this.ended || !this.input.write(bytes)) return false;
    this._link?.wake();
    return true;
  }

  /** End the input.  A terminal has no such end: there it does nothing. */
  end() {
    this.input.ended = true;
    this._link?.wake();
  }

  /**
   * Tell the terminal's size; the last one counts.
   * @param {number} columns
   * @param {number} rows
   */
  resize(columns, rows) {
    const size = [columns, rows].map((cells) => Math.min(Math.max(Math.trunc(cells), 1), 0xffff));
    if (size[0] === this._columns && size[1] === this._rows) return;
    [this._columns, this._rows] = size;
    if (this.state === "open") this._sendSize();
  }

  /**
   * Send a signal to the process group, once.
   * @param {string} name without "SIG": INT, TERM, ...
   */
  signal(name) {
    if (this.options.mode === "view" || this.ended) return;
    this._signals.add(name);
    if (this.state === "open") this._sendSignals();
  }

  statistics() {
    const { input } = this;
    return {
      state: this.state,
      stream: this.stream,
      live: this.live,
      ...this._counts,
      outputs: Object.fromEntries(
        [...this.outputs].map(([channel, { received, consumed, granted, size }]) => [
          channel,
          { received, consumed, granted, window: size },
        ]),
      ),
      input: {
        acknowledged: input.base,
        sent: input.sent,
        end: input.end,
        limit: input.limit,
        kept: input.size,
      },
    };
  }

  // ---------------------------------------------------------------- for the connection

  /**
   * Ask for the stream over a link.
   * @param {Binding} link
   */
  bind(link) {
    const { attachment, kind, tag, mode, policy, replay, start, takeover } = this.options;
    const window = new Map();
    const have = new Map();
    for (const [channel, output] of this.outputs) {
      window.set(channel, this.stream === null ? output.size : output.resumeWindow);
      have.set(channel, output.received);
    }
    /** @type {Record<string, unknown>} */
    // It has to grow over reloads of the page too, which keep the attachment's id.
    this._generation = Math.max(this._generation + 1, Date.now());
    const generation = this._generation;
    const fields = { attachment, generation, kind, tag, mode, policy, replay, window };
    if (this._columns > 0 && mode === "control") {
      Object.assign(fields, { columns: this._columns, rows: this._rows });
    }
    if (this.stream !== null) {
      fields.resume = { stream: this.stream, have, screen: this._screen !== null || undefined };
    }
    else if (!this._everAttached) Object.assign(fields, { start, takeover: takeover || undefined });
    this._link = link;
    this.state = "requested";
    this._sentSize = [this._columns, this._rows];
    this._send(TYPE.ATTACH, 0, fields);
  }

  /** The link is lost. */
  unbind() {
    this._link = null;
    if (this.state !== "ended") this.state = "unbound";
  }

  /** Give the attachment up; the binding, if there is one, is told. */
  giveUp() {
    if (this._link !== null) this._send(TYPE.DETACH, 0, {});
    this._end();
  }

  /** Whether `nextData` would return something. */
  get hasData() {
    return this.state === "open" && this.input.ready;
  }

  /**
   * Return the next frame on the input channel, or null.
   * @param {number} most bytes of data
   * @param {(stream: number, channel: number, offset: number, bytes: Uint8Array) => Uint8Array} encodeData
   */
  nextData(most, encodeData) {
    if (!this.hasData || this._link === null) return null;
    const piece = this.input.take(most);
    if (piece !== null) return encodeData(this._link.id, INPUT, piece.offset, piece.bytes);
    this.input.markFinSent();
    return encodeControl(TYPE.FIN, this._link.id, INPUT, { at: this.input.end });
  }

  /** @param {import("./frames.js").DataPiece} piece */
  receiveData({ channel, offset, bytes }) {
    if (this.state !== "open") throw new ProtocolError(`DATA for a stream that is ${this.state}`);
    this._output(channel).take(offset, bytes.length);
    this._counts.received += bytes.length;
    // What is replay and what is not are handed over apart, so that who draws can tell.
    const cut = channel === 1 ? Math.min(Math.max(this.live - offset, 0), bytes.length) : 0;
    if (cut > 0) this._handData(bytes.subarray(0, cut), channel, offset, true);
    if (cut < bytes.length && this._link !== null) {
      this._handData(bytes.subarray(cut), channel, offset + cut, false);
    }
  }

  /**
   * @param {number} type
   * @param {number} channel
   * @param {Record<string, any>} fields checked already
   */
  receiveMessage(type, channel, fields) {
    if (!LEGAL[this.state].includes(type)) {
      throw new ProtocolError(`${TYPE_NAMES[type]} for a stream that is ${this.state}`);
    }
    switch (type) {
      case TYPE.ATTACHED: return this._receiveAttached(fields);
      case TYPE.REFUSED: return this._receiveRefused(fields.code, fields.message);
      case TYPE.CLOSED: return this._receiveClosed(fields.reason, fields.message);
      case TYPE.GAP: return this._receiveGap(channel, fields.from, fields.to, fields.screen);
      case TYPE.SCREEN: return this._receiveScreen(channel, fields);
      case TYPE.EXIT: return this._receiveExit(fields.code, fields.signal);
      case TYPE.FIN:
        this._output(channel).finish(fields.at);
        return this._renew(channel, true);
      case TYPE.CREDIT:
        if (channel !== INPUT) throw new ProtocolError(`CREDIT for channel ${channel}`);
        this.input.credit(fields.ack, fields.up_to);
        return this._link?.wake();
      case TYPE.STOP:
        if (channel !== INPUT) throw new ProtocolError(`STOP for channel ${channel}`);
        return this.input.stop();
    }
  }

  // ---------------------------------------------------------------- frames

  /** @param {Record<string, any>} fields */
  _receiveAttached(fields) {
    const { options } = this;
    for (const key of /** @type {const} */ (["tag", "kind", "mode"])) {
      if (fields[key] !== options[key]) {
        throw new ProtocolError(`ATTACHED with ${key} ${fields[key]}, asked for ${options[key]}`);
      }
    }
    if (fields.credit < fields.accepted) throw new ProtocolError("ATTACHED with negative credit");
    const fresh = this.stream === null;
    if (!fresh && fields.stream !== this.stream) {
      throw new ProtocolError(`resumed ${fields.stream}, asked for ${this.stream}`);
    }
    for (const [channel, output] of this.outputs) {
      const from = fields.from[channel];
      if (from === undefined) throw new ProtocolError(`ATTACHED without from[${channel}]`);
      if (fresh) output.restart(from);
      else output.resume(from);
    }
    if (fresh) this._space += 1;
    const known = !fresh && fields.resumed;
    let lostInput = 0;
    if (known) {
      if (!this.input.stopped) this.input.resume(fields.accepted, fields.credit);
      this._signals.resume(fields.signals);
    } else {
      lostInput = this.input.restart(fields.accepted, fields.credit);
      this._signals.restart(fields.signals);
    }
    if (fields.stopped) this.input.stop();
    this.stream = fields.stream;
    this.live = fields.live;
    this._screen = fields.screen ? [] : null;
    this.state = "open";
    this._everAttached = true;
    this._counts.attached += 1;
    if (known) this._counts.resumed += 1;
    this._handlers.onattached?.({
      fresh,
      started: fields.started,
      stream: fields.stream,
      pid: fields.pid,
      from: fields.from[1],
      live: fields.live,
      lostInput,
    });
    if (this.state !== "open") return; // the handler has given us up
    this._sendSignals();
    this._sendSize();
    this._link?.wake();
  }

  /**
   * @param {string} code
   * @param {string} message
   */
  _receiveRefused(code, message) {
    const sequel = REFUSALS[code];
    if (sequel === "later") this._link?.retry(code, message);
    else if (sequel === "afresh" && this.stream !== null) this._beginAfresh();
    else this._finish({ refused: true, reason: code, message });
  }

  /**
   * @param {string} reason
   * @param {string} message
   */
  _receiveClosed(reason, message) {
    const sequel = this.ended ? "stop" : CLOSE_REASONS[reason];
    if (sequel === "resume") this._link?.retry(reason, message);
    else if (sequel === "afresh") this._beginAfresh();
    else this._finish({ refused: false, reason, message });
  }

  /**
   * @param {number} channel
   * @param {number} from
   * @param {number} to
   * @param {boolean} screen
   */
  _receiveGap(channel, from, to, screen) {
    this._output(channel).skip(from, to);
    this._counts.gaps += 1;
    this._counts.skipped += to - from;
    const done = this._doneAt(channel, to);
    const replay = channel === MAIN && to <= this.live;
    if (screen) this._screen = [];
    if (this._handlers.ongap) this._handlers.ongap({ channel, from, to, replay, screen }, done);
    else done();
  }

  /**
   * @param {number} channel
   * @param {Record<string, any>} fields
   */
  _receiveScreen(channel, { data, at, columns, rows, last }) {
    const parts = this._screen;
    if (channel !== MAIN || parts === null || at !== this._output(MAIN).received) {
      throw new ProtocolError(`a SCREEN at ${at} out of its turn`);
    }
    parts.push(data.slice());
    const size = parts.reduce((sum, part) => sum + part.length, 0);
    if (size > MAX_SCREEN) throw new ProtocolError(`a SCREEN of more than ${MAX_SCREEN} bytes`);
    if (!last) return;
    this._screen = null;
    const bytes = new Uint8Array(size);
    let position = 0;
    for (const part of parts) {
      bytes.set(part, position);
      position += part.length;
    }
    this._handlers.onscreen?.({ bytes, offset: at, columns, rows });
  }

  /**
   * @param {number | null} code
   * @param {string | null} signal
   */
  _receiveExit(code, signal) {
    if ((code === null) === (signal === null)) {
      throw new ProtocolError("EXIT has neither a code nor a signal, or both");
    }
    if (this.exit !== null) throw new ProtocolError("EXIT comes twice");
    for (const [channel, output] of this.outputs) {
      if (output.finishedAt === null) throw new ProtocolError(`EXIT before FIN of ${channel}`);
    }
    this.exit = { code, signal };
    this.input.stop();
    this._handlers.onexit?.(this.exit);
  }

  // ---------------------------------------------------------------- inside

  /** Forget where we were, and ask again. */
  _beginAfresh() {
    this.stream = null;
    this._link?.again();
  }

  /** @param {Ending} ending */
  _finish(ending) {
    const told = this.exit !== null;
    this._end();
    if (!told) this._handlers.onclosed?.(ending);
  }

  _end() {
    this.unbind();
    this.state = "ended";
    for (const output of this.outputs.values()) output.shrink();
  }

  /** End for a reason of the link. @param {Ending} ending */
  fail(ending) {
    if (this.state !== "ended") this._finish(ending);
  }

  /**
   * @param {Uint8Array} bytes
   * @param {number} channel
   * @param {number} offset
   * @param {boolean} replay
   */
  _handData(bytes, channel, offset, replay) {
    const done = this._doneAt(channel, offset + bytes.length);
    this._handlers.ondata(bytes, { channel, offset, replay }, done);
  }

  /**
   * @param {number} channel
   * @param {number} offset
   * @returns {() => void}
   */
  _doneAt(channel, offset) {
    const space = this._space;
    return () => {
      const output = this._output(channel);
      if (space !== this._space || offset <= output.consumed) return;
      const reachesLive = channel === 1 && output.consumed < this.live && offset >= this.live;
      output.consume(offset);
      this._renew(channel, reachesLive);
      if (offset === output.finishedAt) output.shrink();
    };
  }

  /**
   * Send CREDIT if it is due.
   * @param {number} channel
   * @param {boolean} urgent
   */
  _renew(channel, urgent) {
    if (this.state !== "open" || this._link === null) return;
    const output = this._output(channel);
    const atEnd = output.finishedAt !== null && output.consumed === output.finishedAt;
    const credit = output.renewal(urgent || atEnd, this._link.now(), this._link.roundTrip());
    if (credit !== null) this._send(TYPE.CREDIT, channel, credit);
  }

  _sendSignals() {
    for (const signal of this._signals.takeUnsent()) this._send(TYPE.SIGNAL, 0, signal);
  }

  _sendSize() {
    const [columns, rows] = this._sentSize;
    if (this.options.mode === "view" || this._columns === 0) return;
    if (columns === this._columns && rows === this._rows) return;
    this._sentSize = [this._columns, this._rows];
    this._send(TYPE.RESIZE, 0, { columns: this._columns, rows: this._rows });
  }

  /** @param {number} channel */
  _output(channel) {
    const output = this.outputs.get(channel);
    if (output === undefined) throw new ProtocolError(`channel ${channel} is not an output here`);
    return output;
  }

  /**
   * @param {number} type
   * @param {number} channel
   * @param {Record<string, unknown>} fields
   */
  _send(type, channel, fields) {
    this._link?.send(encodeControl(type, this._link.id, channel, fields));
  }
}
