// @ts-check
/**
 * One link's state, without its carrier (trunk/1 § 3).
 *
 * Bytes go in through `receive`; what has to go out is pulled through `nextSend`: control frames
 * first, then slices of input, the attachments taking turns.
 */

import { encodeControl, encodeData, FrameDecoder, SLICE_BYTES, TYPE, TYPE_NAMES } from "./frames.js";
import { decodeMessage } from "./messages.js";
import { ProtocolError } from "./reasons.js";

const VERSION = 1;
const MAX_STREAMS = 256;
/** Bytes of control frames that may wait; a peer that lets more pile up does not read. */
const MAX_BACKLOG = 1024 * 1024;

/** Milliseconds between two PINGs; the answer is also the round trip that is shown. */
export const PING_INTERVAL = 10_000;
/** Milliseconds without anything from the peer after which the link is dead. */
export const DEAD_AFTER = 30_000;
/** Milliseconds that a PING has at least: timers of a hidden page run late. */
export const PING_PATIENCE = 5_000;
/** Milliseconds in which the peer must give a sign of life after a hint that the link is broken. */
export const PROBE_PATIENCE = 3_000;

/** @typedef {import("./attachment.js").Attachment} Attachment */
/** @typedef {{reason: string, message: string, retryAfter: number | null}} GoAway */

export class Connection {
  /**
   * @param {object} options
   * @param {string} options.software told to the peer
   * @param {number} options.now milliseconds, on any clock that only goes forward
   * @param {() => void} options.onoutput there is something to send
   * @param {(reason: string, message: string, attachment: Attachment) => void} options.onretry an
   *   attachment has to be bound again after a while
   * @param {(goaway: GoAway) => void} options.ongoaway
   */
  constructor({ software, now, onoutput, onretry, ongoaway }) {
    this._decoder = new FrameDecoder();
    /** @type {Map<number, Attachment>} */
    this._bound = new Map();
    /** @type {Uint8Array[]} */
    this._control = [];
    this._backlog = 0;
    this._nextId = 1; // a dialer uses odd ids
    this._turn = 0;
    this._onoutput = onoutput;
    this._onretry = onretry;
    this._ongoaway = ongoaway;
    this._now = now;
    this._heardAt = now;
    this._pingId = 0;
    /** @type {number | null} */
    this._pingSentAt = null;
    this._lastPingAt = now;
    /** @type {number | null} */
    this._probeUntil = null;
    /** @type {string | null} what the peer calls itself; null before its HELLO */
    this.peer = null;
    /** @type {number | null} milliseconds */
    this.roundTrip = null;
    this.bytesReceived = 0;
    this.bytesSent = 0;
    this._send(encodeControl(TYPE.HELLO, 0, 0, { version: VERSION, software }));
  }

  // ---------------------------------------------------------------- attachments

  /**
   * Ask for what `attachment` wants, under a new stream id.
   * @param {Attachment} attachment
   */
  attach(attachment) {
    if (this._bound.size >= MAX_STREAMS) throw new RangeError(`more than ${MAX_STREAMS} streams`);
    const id = this._nextId;
    this._nextId += 2;
    this._bound.set(id, attachment);
    attachment.bind({
      id,
      send: (frame) => this._send(frame),
      wake: () => this._onoutput(),
      again: () => {
        this._bound.delete(id);
        this.attach(attachment);
      },
      retry: (reason, message) => {
        this._bound.delete(id);
        attachment.unbind();
        this._onretry(reason, message, attachment);
      },
      roundTrip: () => this.roundTrip,
      now: () => this._now,
    });
  }

  /** Give an attachment up. @param {Attachment} attachment */
  detach(attachment) {
    attachment.giveUp();
    this._drop(attachment);
  }

  /** The carrier is gone: no attachment is bound any more. */
  unbindAll() {
    for (const attachment of this._bound.values()) attachment.unbind();
    this._bound.clear();
  }

  // ---------------------------------------------------------------- receiving

  /**
   * Take bytes from the carrier.
   * @param {Uint8Array} bytes
   * @param {number} now milliseconds
   * @throws {ProtocolError} the peer broke a rule: send GOAWAY and close
   */
  receive(bytes, now) {
    this._now = now;
    this._heardAt = now;
    this._probeUntil = null;
    this.bytesReceived += bytes.length;
    for (const frame of this._decoder.feed(bytes)) {
      if ("bytes" in frame) this._find(frame.stream, frame.type)?.receiveData(frame);
      else this._receiveControl(frame, now);
    }
    if (this._backlog > MAX_BACKLOG) throw new ProtocolError("our answers are not read");
  }

  /**
   * @param {import("./frames.js").ControlFrame} frame
   * @param {number} now
   */
  _receiveControl(frame, now) {
    if (this.peer === null && frame.type !== TYPE.HELLO) {
      throw new ProtocolError("the first frame is not HELLO");
    }
    const fields = decodeMessage(frame);
    if (fields === null) return;
    switch (frame.type) {
      case TYPE.HELLO:
        if (this.peer !== null) throw new ProtocolError("HELLO comes twice");
        if (fields.version !== VERSION) {
          throw new ProtocolError(`the server speaks version ${fields.version}, we speak ${VERSION}`);
        }
        this.peer = fields.software;
        this._ping(now);
        return;
      case TYPE.PING:
        this._send(encodeControl(TYPE.PONG, 0, 0, { id: fields.id }));
        return;
      case TYPE.PONG:
        if (this._pingSentAt !== null && fields.id === this._pingId) {
          this.roundTrip = now - this._pingSentAt;
          this._pingSentAt = null;
        }
        return;
      case TYPE.GOAWAY:
        this._ongoaway({ reason: fields.reason, message: fields.message, retryAfter: fields.retry_after });
        return;
    }
    const attachment = this._find(frame.stream, frame.type);
    if (attachment === null) return;
    attachment.receiveMessage(frame.type, frame.channel, fields);
    if (attachment.state === "ended") this._drop(attachment);
  }

  /**
   * Return the attachment behind a stream id; null when the id was in use: the frame is late.
   * @param {number} id
   * @param {number} type
   */
  _find(id, type) {
    if (this.peer === null) throw new ProtocolError("the first frame is not HELLO");
    const attachment = this._bound.get(id);
    if (attachment !== undefined) return attachment;
    if (id % 2 === 1 && id < this._nextId) return null;
    throw new ProtocolError(`${TYPE_NAMES[type]} for stream ${id}, which was never opened`);
  }

  /** @param {Attachment} attachment */
  _drop(attachment) {
    for (const [id, bound] of this._bound) if (bound === attachment) this._bound.delete(id);
  }

  // ---------------------------------------------------------------- sending

  /** @param {Uint8Array} frame */
  _send(frame) {
    this._control.push(frame);
    this._backlog += frame.length;
    this._onoutput();
  }

  /** Whether control frames wait. */
  get hasControl() {
    return this._control.length > 0;
  }

  /** Whether `nextSend` would return something, given a budget. */
  get hasOutput() {
    return this.hasControl || [...this._bound.values()].some((bound) => bound.hasData);
  }

  /**
   * Return the next frames for the carrier, about `budget` bytes of data after all control frames.
   * What is returned counts as sent.
   * @param {number} budget bytes
   * @returns {Uint8Array[]}
   */
  nextSend(budget) {
    const frames = this._control;
    this._control = [];
    this._backlog = 0;
    let spent = 0;
    const ready = [...this._bound.values()];
    let idle = 0;
    while (ready.length > 0 && spent < budget && idle < ready.length) {
      this._turn = (this._turn + 1) % ready.length;
      const frame = ready[this._turn].nextData(SLICE_BYTES, encodeData);
      if (frame === null) idle += 1;
      else {
        idle = 0;
        frames.push(frame);
        spent += frame.length;
      }
    }
    for (const frame of frames) this.bytesSent += frame.length;
    return frames;
  }

  /** Say that this side will close the link. @param {string} reason @param {string} message */
  goAway(reason, message) {
    this._send(encodeControl(TYPE.GOAWAY, 0, 0, { reason, message: message.slice(0, 1024) }));
  }

  // ---------------------------------------------------------------- time

  /**
   * Let time pass.
   * @param {number} now milliseconds
   * @returns {boolean} false: the link is dead
   */
  tick(now) {
    this._now = now;
    if (this._probeUntil !== null && now >= this._probeUntil) return false;
    const pinged = this._pingSentAt;
    if (pinged !== null && now - this._heardAt >= DEAD_AFTER && now - pinged >= PING_PATIENCE) {
      return false;
    }
    if (now - this._lastPingAt >= PING_INTERVAL) this._ping(now);
    return true;
  }

  /** Milliseconds on the clock at which `tick` should be called next. */
  get nextTick() {
    const due = [this._lastPingAt + PING_INTERVAL];
    if (this._pingSentAt !== null) {
      due[0] = Math.max(this._heardAt + DEAD_AFTER, this._pingSentAt + PING_PATIENCE);
    }
    if (this._probeUntil !== null) due.push(this._probeUntil);
    return Math.min(...due);
  }

  /** There is a hint that the link may be broken: ask for a sign of life. @param {number} now */
  probe(now) {
    this._now = now;
    this._probeUntil ??= now + PROBE_PATIENCE;
    this._ping(now);
  }

  /** @param {number} now */
  _ping(now) {
    if (this._pingSentAt !== null) return; // one is under way
    this._lastPingAt = now;
    this._pingId += 1;
    this._pingSentAt = now;
    this._send(encodeControl(TYPE.PING, 0, 0, { id: this._pingId }));
  }
}
