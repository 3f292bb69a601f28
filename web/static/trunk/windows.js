// @ts-check
/**
 * Flow control by absolute offset (trunk/1 § 4): one object per channel and direction.
 *
 * Offsets are plain numbers: exact up to 2^53, which is 9 petabytes of terminal.
 */

import { ProtocolError } from "./reasons.js";

/** Bytes that may be under way to a channel at first. */
export const INITIAL_WINDOW = 256 * 1024;
/** Bytes; what a window may grow to.  A terminal draws this in about a tenth of a second. */
export const MAX_WINDOW = 1024 * 1024;
/** Bytes by which all windows of a trunk together may grow. */
export const MAX_GROWTH = 8 * 1024 * 1024;
/** Bytes; the most that is consumed before CREDIT says so, since owners keep what is not acknowledged. */
export const RENEW_BYTES = 128 * 1024;
/** Bytes of input that are kept until the owner has taken them over. */
export const INPUT_CAPACITY = 4 * 1024 * 1024;

/** A number of bytes that the windows of a trunk share: what they may grow by. */
export class Growth {
  /** @param {number} [total] bytes */
  constructor(total = MAX_GROWTH) {
    this.available = total;
    this.taken = 0;
  }

  /** Take at most so many bytes. @param {number} most @returns {number} how many there were */
  take(most) {
    const taken = Math.min(most, this.available);
    this.available -= taken;
    this.taken += taken;
    return taken;
  }

  /** @param {number} count */
  giveBack(count) {
    this.available += count;
    this.taken -= count;
  }
}

/**
 * What the peer may send on one channel, and how much of it has been consumed.
 *
 * Invariant: consumed <= received <= granted, except that a GAP may pass `granted`.
 */
export class OutputWindow {
  /**
   * @param {number} [size] bytes
   * @param {number} [most] what it may grow to
   * @param {Growth} [growth] where it takes from what it grows by
   */
  constructor(size = INITIAL_WINDOW, most = MAX_WINDOW, growth = new Growth()) {
    this.received = 0;
    this.consumed = 0;
    this.granted = 0;
    this.acknowledged = 0;
    this.size = size;
    /** @type {number | null} */
    this.finishedAt = null;
    this._most = Math.max(size, most);
    this._growth = growth;
    this._grown = 0;
    this._measuredFrom = 0;
    this._measuredSince = -Infinity;
  }

  /** Begin anew, at an offset that the peer names. @param {number} offset */
  restart(offset) {
    this.received = this.consumed = this.acknowledged = this._measuredFrom = offset;
    this.granted = offset + this.size;
    this.finishedAt = null;
  }

  /** What to ask for when resuming: less by what was received and waits to be consumed. */
  get resumeWindow() {
    return Math.max(0, this.consumed + this.size - this.received);
  }

  /**
   * Go on after a cut; the bytes before `from` come as a GAP.
   * @param {number} from
   */
  resume(from) {
    if (from < this.received) {
      throw new ProtocolError(`output goes on at ${from}, ${this.received} was asked for`);
    }
    this.granted = from + this.resumeWindow;
    this.finishedAt = null;
  }

  /**
   * Take in bytes.
   * @param {number} offset
   * @param {number} count
   */
  take(offset, count) {
    if (this.finishedAt !== null) throw new ProtocolError("bytes after FIN");
    if (offset !== this.received) {
      throw new ProtocolError(`bytes at offset ${offset}, expected ${this.received}`);
    }
    if (offset + count > this.granted) {
      throw new ProtocolError(`bytes up to ${offset + count}, credit given up to ${this.granted}`);
    }
    this.received += count;
  }

  /**
   * Take in a GAP.
   * @param {number} from
   * @param {number} to
   */
  skip(from, to) {
    if (this.finishedAt !== null || from !== this.received || to <= from) {
      throw new ProtocolError(`a gap ${from}..${to}, expected from ${this.received}`);
    }
    this.received = to;
  }

  /** Take in FIN. @param {number} at */
  finish(at) {
    if (at !== this.received) throw new ProtocolError(`FIN at ${at}, expected ${this.received}`);
    this.finishedAt = at;
  }

  /**
   * Say that everything below `offset` has been consumed.
   * @param {number} offset
   */
  consume(offset) {
    if (offset < this.consumed || offset > this.received) {
      throw new RangeError(`consumed ${offset}, not in ${this.consumed}..${this.received}`);
    }
    this.consumed = offset;
  }

  /**
   * Return the CREDIT that is due, or null.  It is due when half a window or `RENEW_BYTES` have been
   * consumed, or at once with `urgent`.
   * @param {boolean} urgent
   * @param {number} now milliseconds
   * @param {number | null} roundTrip milliseconds
   * @returns {{ack: number, up_to: number} | null}
   */
  renewal(urgent, now, roundTrip) {
    const due = this.consumed + this.size - this.granted >= Math.min(this.size / 2, RENEW_BYTES);
    if (!due && !(urgent && this.consumed > this.acknowledged)) return null;
    if (due && this.consumed - this._measuredFrom >= this.size / 2) {
      // Half a window within one round trip: the path could carry more than we allow.
      if (roundTrip !== null && now - this._measuredSince < roundTrip) {
        const more = this._growth.take(Math.min(this.size, this._most - this.size));
        this.size += more;
        this._grown += more;
      }
      this._measuredFrom = this.consumed;
      this._measuredSince = now;
    }
    this.granted = Math.max(this.granted, this.consumed + this.size);
    this.acknowledged = this.consumed;
    return { ack: this.acknowledged, up_to: this.granted };
  }

  /** Go back to the first size: nothing more will come, and others can use the growth. */
  shrink() {
    this._growth.giveBack(this._grown);
    this.size -= this._grown;
    this._grown = 0;
  }
}

/**
 * What we send on the input channel: kept until the owner has taken it over, so that after a cut
 * it can be sent again from exactly where the owner is.
 *
 * Invariant: base <= next <= sent <= end, next <= limit where `sent` is the most that any link has
 * carried.
 */
export class InputBuffer {
  /** @param {number} [capacity] bytes */
  constructor(capacity = INPUT_CAPACITY) {
    /** @type {Uint8Array[]} */
    this._chunks = [];
    this._capacity = capacity;
    /** Offset of the first byte that is kept. */
    this.base = 0;
    /** Offset of the next byte to send on this link. */
    this.next = 0;
    /** Offset after the last byte that was ever sent. */
    this.sent = 0;
    /** Offset after the last byte. */
    this.end = 0;
    /** The owner's credit. */
    this.limit = 0;
    this.stopped = false;
    this.ended = false;
    this._finSent = false;
  }

  /** Bytes that are kept. */
  get size() {
    return this.end - this.base;
  }

  /** Whether `write` would take so many bytes. @param {number} count */
  hasRoom(count) {
    return this.size + count <= this._capacity;
  }

  /**
   * Take all of `bytes`, or nothing.  They must not be changed afterwards.
   * @param {Uint8Array} bytes
   * @returns {boolean} false: too much is waiting, or nobody reads any more; nothing was taken
   */
  write(bytes) {
    if (this.stopped || this.ended || !this.hasRoom(bytes.length)) return false;
    if (bytes.length > 0) {
      this._chunks.push(bytes);
      this.end += bytes.length;
    }
    return true;
  }

  /** Whether `take` would return something. */
  get ready() {
    if (this.stopped) return false;
    return this.next < Math.min(this.end, this.limit) || this.finDue;
  }

  /** Whether FIN is the next thing to send. */
  get finDue() {
    return this.ended && !this._finSent && !this.stopped && this.next === this.end;
  }

  markFinSent() {
    this._finSent = true;
  }

  /**
   * Return the next bytes to send, under the credit; they count as sent.
   * @param {number} most
   * @returns {{offset: number, bytes: Uint8Array} | null}
   */
  take(most) {
    const count = Math.min(most, Math.min(this.end, this.limit) - this.next);
    if (this.stopped || count <= 0) return null;
    const offset = this.next;
    const bytes = this._read(offset, count);
    this.next += count;
    this.sent = Math.max(this.sent, this.next);
    return { offset, bytes };
  }

  /**
   * Take in CREDIT.  What is older than what we have changes nothing.
   * @param {number | null} ack
   * @param {number | null} upTo
   */
  credit(ack, upTo) {
    if (ack !== null) {
      if (ack > this.next) throw new ProtocolError(`input up to ${ack} acknowledged, ${this.next} sent`);
      if (ack > this.base) this._forget(ack);
    }
    if (upTo !== null) this.limit = Math.max(this.limit, upTo);
  }

  /**
   * Go on where the owner is.
   * @param {number} accepted
   * @param {number} credit
   */
  resume(accepted, credit) {
    if (accepted < this.base || accepted > this.sent) {
      throw new ProtocolError(
        `input accepted up to ${accepted}, but ${this.base}..${this.sent} was sent and not acknowledged`,
      );
    }
    this._forget(accepted);
    this.next = accepted;
    this.limit = credit;
    this._finSent = false;
  }

  /**
   * Begin with an owner that knows nothing of what was sent before.  What was sent and not
   * acknowledged is given up, because nobody can know what became of it; what was not sent yet is
   * numbered anew from `accepted`.
   * @param {number} accepted
   * @param {number} credit
   * @returns {number} how many bytes were given up
   */
  restart(accepted, credit) {
    const lost = this.sent - this.base;
    this._forget(this.sent);
    const kept = this.size;
    this.base = this.next = this.sent = accepted;
    this.end = accepted + kept;
    this.limit = credit;
    this.stopped = false;
    this._finSent = false;
    return lost;
  }

  /** Forget everything: nobody reads the input any more. */
  stop() {
    this.stopped = true;
    this._chunks = [];
    this.base = this.next = this.sent = this.end;
  }

  /**
   * @param {number} offset
   * @param {number} count
   */
  _read(offset, count) {
    const bytes = new Uint8Array(count);
    let filled = 0;
    let start = this.base;
    for (const chunk of this._chunks) {
      const stop = start + chunk.length;
      if (stop > offset + filled) {
        const from = offset + filled - start;
        const part = chunk.subarray(from, from + count - filled);
        bytes.set(part, filled);
        filled += part.length;
        if (filled === count) break;
      }
      start = stop;
    }
    return bytes;
  }

  /** @param {number} offset everything below it is gone for good */
  _forget(offset) {
    while (this._chunks.length > 0 && this.base + this._chunks[0].length <= offset) {
      this.base += this._chunks[0].length;
      this._chunks.shift();
    }
    if (this.base < offset) {
      this._chunks[0] = this._chunks[0].subarray(offset - this.base);
      this.base = offset;
    }
  }
}
