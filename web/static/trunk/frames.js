// @ts-check
/** Frames on the wire (trunk/1 § 2): a 12-byte header, then the payload. */

import { encode } from "./msgpack.js";
import { ProtocolError } from "./reasons.js";

export const TYPE = Object.freeze({
  HELLO: 0x00,
  DATA: 0x01,
  CREDIT: 0x02,
  GAP: 0x03,
  FIN: 0x04,
  ATTACH: 0x05,
  ATTACHED: 0x06,
  REFUSED: 0x07,
  DETACH: 0x08,
  CLOSED: 0x09,
  EXIT: 0x0a,
  RESIZE: 0x0b,
  SIGNAL: 0x0c,
  PING: 0x0d,
  PONG: 0x0e,
  GOAWAY: 0x0f,
  STOP: 0x10,
  SCREEN: 0x11,
});

/** @type {Readonly<Record<number, string>>} */
export const TYPE_NAMES = Object.freeze(
  Object.fromEntries(Object.entries(TYPE).map(([name, type]) => [type, name])),
);

export const HEADER_BYTES = 12;
export const OFFSET_BYTES = 8;
/** The most bytes one DATA frame may carry. */
export const MAX_DATA_BYTES = 1024 * 1024;
/** The most bytes the payload of any other frame may have. */
export const MAX_CONTROL_BYTES = 64 * 1024;
/** A good size for the bytes of one DATA frame. */
export const SLICE_BYTES = 64 * 1024;

/**
 * Bytes of a DATA frame: all of them, or as many as have come.
 * @typedef {{type: 0x01, stream: number, channel: number, offset: number, bytes: Uint8Array}} DataPiece
 */
/**
 * A whole frame other than DATA.
 * @typedef {{type: number, stream: number, channel: number, payload: Uint8Array}} ControlFrame
 */

/**
 * Return a whole frame other than DATA.
 * @param {number} type
 * @param {number} stream
 * @param {number} channel
 * @param {Record<string, unknown>} fields
 * @returns {Uint8Array}
 */
export function encodeControl(type, stream, channel, fields) {
  const payload = encode(fields);
  if (payload.length > MAX_CONTROL_BYTES) {
    throw new RangeError(`a ${TYPE_NAMES[type]} of ${payload.length} bytes is too large to send`);
  }
  const frame = new Uint8Array(HEADER_BYTES + payload.length);
  writeHeader(frame, type, stream, channel, payload.length);
  frame.set(payload, HEADER_BYTES);
  return frame;
}

/**
 * Return a whole DATA frame.
 * @param {number} stream
 * @param {number} channel
 * @param {number} offset
 * @param {Uint8Array} bytes
 * @returns {Uint8Array}
 */
export function encodeData(stream, channel, offset, bytes) {
  const frame = new Uint8Array(HEADER_BYTES + OFFSET_BYTES + bytes.length);
  const view = writeHeader(frame, TYPE.DATA, stream, channel, OFFSET_BYTES + bytes.length);
  view.setBigUint64(HEADER_BYTES, BigInt(offset));
  frame.set(bytes, HEADER_BYTES + OFFSET_BYTES);
  return frame;
}

/**
 * @param {Uint8Array} frame
 * @param {number} type
 * @param {number} stream
 * @param {number} channel
 * @param {number} length
 */
function writeHeader(frame, type, stream, channel, length) {
  const view = new DataView(frame.buffer);
  view.setUint8(0, type);
  view.setUint8(2, channel);
  view.setUint32(4, stream);
  view.setUint32(8, length);
  return view;
}

/**
 * Cuts a byte stream into frames.
 *
 * The bytes of DATA are handed on as they come, without a copy; any other frame is handed on whole.
 * So it holds at most one header and one control payload.
 */
export class FrameDecoder {
  constructor() {
    this._held = new Uint8Array(0); // the beginning of a frame that is not complete yet
    this._remaining = 0; // bytes of the DATA frame that is being handed on
    this._stream = 0;
    this._channel = 0;
    this._offset = 0;
  }

  /** How many bytes wait for the rest of their frame. */
  get bufferedBytes() {
    return this._held.length;
  }

  /**
   * Take bytes and yield what they complete.  What is yielded may be views of `bytes`.
   * @param {Uint8Array} bytes
   * @returns {Generator<DataPiece | ControlFrame, void, void>}
   * @throws {ProtocolError} an impossible length or offset; feed nothing more
   */
  *feed(bytes) {
    let rest = bytes;
    while (rest.length > 0) {
      if (this._remaining > 0) {
        const piece = rest.subarray(0, this._remaining);
        rest = rest.subarray(piece.length);
        yield this._piece(piece);
        continue;
      }
      if (this._held.length > 0) {
        const wanted = Math.max(frameHeadBytes(this._held), HEADER_BYTES) - this._held.length;
        const more = rest.subarray(0, wanted);
        this._held = concatenate(this._held, more);
        rest = rest.subarray(more.length);
        const size = frameHeadBytes(this._held);
        if (size > 0 && this._held.length >= size) {
          const whole = this._held;
          this._held = new Uint8Array(0);
          const frame = this._parse(whole);
          if (frame) yield frame;
        }
        continue;
      }
      const size = frameHeadBytes(rest);
      if (size === 0 || rest.length < size) {
        this._held = rest.slice();
        return;
      }
      const frame = this._parse(rest.subarray(0, size));
      rest = rest.subarray(size);
      if (frame) yield frame;
    }
  }

  /**
   * @param {Uint8Array} bytes
   * @returns {DataPiece}
   */
  _piece(bytes) {
    const offset = this._offset;
    this._offset += bytes.length;
    this._remaining -= bytes.length;
    return { type: TYPE.DATA, stream: this._stream, channel: this._channel, offset, bytes };
  }

  /**
   * Parse a whole control frame, or the head of a DATA frame (which gives nothing yet).
   * @param {Uint8Array} frame
   * @returns {ControlFrame | null}
   */
  _parse(frame) {
    const view = viewOf(frame);
    const [type, channel, stream] = [view.getUint8(0), view.getUint8(2), view.getUint32(4)];
    if (type !== TYPE.DATA) return { type, stream, channel, payload: frame.subarray(HEADER_BYTES) };
    const count = view.getUint32(8) - OFFSET_BYTES;
    const offset = Number(view.getBigUint64(HEADER_BYTES));
    if (!Number.isSafeInteger(offset + count)) {
      throw new ProtocolError(`a DATA frame at offset ${offset}`);
    }
    this._stream = stream;
    this._channel = channel;
    this._offset = offset;
    this._remaining = count;
    return null;
  }
}

/**
 * How many bytes must be there before the frame can be parsed; 0 while that is unknown.  For DATA
 * that is header and offset, for anything else the whole frame.
 * @param {Uint8Array} bytes
 */
function frameHeadBytes(bytes) {
  if (bytes.length < HEADER_BYTES) return 0;
  const view = viewOf(bytes);
  const type = view.getUint8(0);
  const length = view.getUint32(8);
  if (type === TYPE.DATA) {
    if (length <= OFFSET_BYTES || length > OFFSET_BYTES + MAX_DATA_BYTES) {
      throw new ProtocolError(`a DATA frame with a payload of ${length} bytes`);
    }
    return HEADER_BYTES + OFFSET_BYTES;
  }
  if (length > MAX_CONTROL_BYTES) {
    throw new ProtocolError(`a ${TYPE_NAMES[type] ?? `0x${type.toString(16)}`} of ${length} bytes`);
  }
  return HEADER_BYTES + length;
}

/** @param {Uint8Array} bytes */
function viewOf(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/**
 * @param {Uint8Array} a
 * @param {Uint8Array} b
 */
function concatenate(a, b) {
  const joined = new Uint8Array(a.length + b.length);
  joined.set(a);
  joined.set(b, a.length);
  return joined;
}
