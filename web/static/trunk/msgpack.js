// @ts-check
/**
 * The part of MessagePack that trunk/1 needs (https://msgpack.org, the specification).
 *
 * Written out here because the maps `from`, `have` and `window` have integer keys: a JavaScript
 * object cannot hold those, and the usual packages cannot write them.  `Map` stands for a map with
 * such keys on the way out; on the way in, integer keys become the decimal names that JavaScript
 * objects have anyway, and the message tables check them.
 *
 * `decode` takes what the peer chose to send: it holds no state, allocates nothing by a declared
 * length before that many bytes are there, and limits the depth.
 */

import { ProtocolError } from "./reasons.js";

/** How deeply arrays and maps may be nested. */
const MAX_DEPTH = 8;

const TEXT_ENCODER = new TextEncoder();
const TEXT_DECODER = new TextDecoder("utf-8", { fatal: true });

/**
 * Encode a value: null, boolean, safe integer, finite number, string, Uint8Array, array, Map, or
 * plain object.  Properties that are `undefined` are left out.
 * @param {unknown} value
 * @returns {Uint8Array}
 */
export function encode(value) {
  /** @type {number[]} */
  const out = [];
  write(out, value);
  return Uint8Array.from(out);
}

/**
 * @param {number[]} out
 * @param {unknown} value
 */
function write(out, value) {
  if (value === null) out.push(0xc0);
  else if (typeof value === "boolean") out.push(value ? 0xc3 : 0xc2);
  else if (typeof value === "number") writeNumber(out, value);
  else if (typeof value === "string") writeString(out, value);
  else if (value instanceof Uint8Array) {
    writeHead(out, value.length, [], [0xc4, 0xc5, 0xc6]);
    for (const byte of value) out.push(byte);
  } else if (Array.isArray(value)) {
    writeHead(out, value.length, [0x90, 15], [0, 0xdc, 0xdd]);
    for (const item of value) write(out, item);
  } else if (value instanceof Map) {
    writeHead(out, value.size, [0x80, 15], [0, 0xde, 0xdf]);
    for (const [key, item] of value) {
      write(out, key);
      write(out, item);
    }
  } else if (typeof value === "object") {
    const entries = Object.entries(value).filter(([, item]) => item !== undefined);
    writeHead(out, entries.length, [0x80, 15], [0, 0xde, 0xdf]);
    for (const [key, item] of entries) {
      writeString(out, key);
      write(out, item);
    }
  } else throw new TypeError(`a ${typeof value} cannot be encoded`);
}

/**
 * Write a length in the shortest of the forms that exist for the type.
 * @param {number[]} out
 * @param {number} length
 * @param {number[]} short base and greatest length of the one-byte form, or nothing
 * @param {number[]} codes for lengths of 8, 16 and 32 bits; 0 where there is none
 */
function writeHead(out, length, [base, most], [code8, code16, code32]) {
  if (most !== undefined && length <= most) out.push(base | length);
  else if (code8 && length <= 0xff) out.push(code8, length);
  else if (length <= 0xffff) out.push(code16, length >> 8, length & 0xff);
  else out.push(code32, ...bigEndian(length, 4));
}

/**
 * @param {number[]} out
 * @param {string} text
 */
function writeString(out, text) {
  const bytes = TEXT_ENCODER.encode(text);
  writeHead(out, bytes.length, [0xa0, 31], [0xd9, 0xda, 0xdb]);
  for (const byte of bytes) out.push(byte);
}

/**
 * @param {number[]} out
 * @param {number} value
 */
function writeNumber(out, value) {
  if (Number.isSafeInteger(value)) {
    if (value >= 0) {
      if (value < 0x80) out.push(value);
      else if (value <= 0xff) out.push(0xcc, value);
      else if (value <= 0xffff) out.push(0xcd, ...bigEndian(value, 2));
      else if (value <= 0xffffffff) out.push(0xce, ...bigEndian(value, 4));
      else out.push(0xcf, ...bigEndian(value, 8));
    } else if (value >= -0x20) out.push(value & 0xff);
    else {
      const bytes = new Uint8Array(8);
      new DataView(bytes.buffer).setBigInt64(0, BigInt(value));
      out.push(0xd3, ...bytes);
    }
  } else if (Number.isFinite(value) && !Number.isInteger(value)) {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setFloat64(0, value);
    out.push(0xcb, ...bytes);
  } else throw new RangeError(`${value} cannot be encoded exactly`);
}

/**
 * @param {number} value
 * @param {number} size
 * @returns {number[]}
 */
function bigEndian(value, size) {
  const bytes = [];
  for (let rest = value; bytes.length < size; rest = Math.floor(rest / 256)) {
    bytes.unshift(rest % 256);
  }
  return bytes;
}

/**
 * Decode exactly one value.  An integer beyond 2^53 comes as a BigInt.
 * @param {Uint8Array} bytes
 * @returns {unknown}
 * @throws {ProtocolError} when the bytes are not one value, or one with a type that no message has
 */
export function decode(bytes) {
  const reader = new Reader(bytes);
  const value = reader.value(0);
  if (reader.position !== bytes.length) {
    throw new ProtocolError(`${bytes.length - reader.position} bytes after a msgpack value`);
  }
  return value;
}

class Reader {
  /** @param {Uint8Array} bytes */
  constructor(bytes) {
    this.position = 0;
    this._bytes = bytes;
    this._view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /**
   * @param {number} depth
   * @returns {unknown}
   */
  value(depth) {
    if (depth > MAX_DEPTH) throw new ProtocolError(`msgpack nested deeper than ${MAX_DEPTH}`);
    const code = this._unsigned(1);
    if (code < 0x80) return code;
    if (code < 0x90) return this._map(code & 0x0f, depth);
    if (code < 0xa0) return this._array(code & 0x0f, depth);
    if (code < 0xc0) return this._string(code & 0x1f);
    if (code >= 0xe0) return code - 0x100;
    switch (code) {
      case 0xc0: return null;
      case 0xc2: return false;
      case 0xc3: return true;
      case 0xc4: return this._take(this._unsigned(1));
      case 0xc5: return this._take(this._unsigned(2));
      case 0xc6: return this._take(this._unsigned(4));
      case 0xca: return this._view.getFloat32(this._skip(4));
      case 0xcb: return this._view.getFloat64(this._skip(8));
      case 0xcc: return this._unsigned(1);
      case 0xcd: return this._unsigned(2);
      case 0xce: return this._unsigned(4);
      case 0xcf: return number(this._view.getBigUint64(this._skip(8)));
      case 0xd0: return this._view.getInt8(this._skip(1));
      case 0xd1: return this._view.getInt16(this._skip(2));
      case 0xd2: return this._view.getInt32(this._skip(4));
      case 0xd3: return number(this._view.getBigInt64(this._skip(8)));
      case 0xd9: return this._string(this._unsigned(1));
      case 0xda: return this._string(this._unsigned(2));
      case 0xdb: return this._string(this._unsigned(4));
      case 0xdc: return this._array(this._unsigned(2), depth);
      case 0xdd: return this._array(this._unsigned(4), depth);
      case 0xde: return this._map(this._unsigned(2), depth);
      case 0xdf: return this._map(this._unsigned(4), depth);
      default: throw new ProtocolError(`msgpack type 0x${code.toString(16)}`);
    }
  }

  /**
   * @param {number} count
   * @returns {number} where the bytes begin that were passed over
   */
  _skip(count) {
    const start = this.position;
    if (count > this._bytes.length - start) throw new ProtocolError("msgpack ends too early");
    this.position += count;
    return start;
  }

  /** @param {1 | 2 | 4} size */
  _unsigned(size) {
    const start = this._skip(size);
    if (size === 1) return this._view.getUint8(start);
    return size === 2 ? this._view.getUint16(start) : this._view.getUint32(start);
  }

  /** @param {number} count */
  _take(count) {
    const start = this._skip(count);
    return this._bytes.subarray(start, start + count);
  }

  /** @param {number} count */
  _string(count) {
    try {
      return TEXT_DECODER.decode(this._take(count));
    } catch (error) {
      if (error instanceof ProtocolError) throw error;
      throw new ProtocolError("a msgpack string is not UTF-8");
    }
  }

  /**
   * @param {number} count
   * @param {number} depth
   */
  _array(count, depth) {
    const items = [];
    for (let i = 0; i < count; i++) items.push(this.value(depth + 1));
    return items;
  }

  /**
   * @param {number} count
   * @param {number} depth
   */
  _map(count, depth) {
    /** @type {Record<string, unknown>} */
    const map = Object.create(null); // no prototype that a key could reach
    for (let i = 0; i < count; i++) {
      const key = this.value(depth + 1);
      if (typeof key !== "string" && !Number.isSafeInteger(key)) {
        throw new ProtocolError("a msgpack map key is neither a string nor an integer");
      }
      const name = String(key);
      if (name in map) throw new ProtocolError(`the msgpack map key ${name} comes twice`);
      map[name] = this.value(depth + 1);
    }
    return map;
  }
}

/** @param {bigint} value */
function number(value) {
  const plain = Number(value);
  return Number.isSafeInteger(plain) ? plain : value;
}
