/**
 * Test doubles: the owner of one stream, in memory, and a wire that can be cut at any byte.
 *
 * The owner checks what the client sends as strictly as the client checks the owner.
 */

import assert from "node:assert/strict";

import { encodeControl, encodeData, FrameDecoder, TYPE } from "../../web/static/trunk/frames.js";
import { decode } from "../../web/static/trunk/msgpack.js";

/** A small seeded generator (mulberry32): the same seed, the same run. */
export function seeded(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  next.below = (limit) => Math.floor(next() * limit);
  return next;
}

/** The byte that belongs at an offset: any repetition or hole shows. */
export const byteAt = (offset) => (offset * 7 + (offset >>> 8) * 13 + (offset >>> 16)) & 0xff;

export function pattern(from, to) {
  return Uint8Array.from({ length: to - from }, (_, i) => byteAt(from + i));
}

export class FakeOwner {
  /** `ring`: bytes of output that are kept; `inputWindow`: credit for input. */
  constructor({ ring = Infinity, inputWindow = 4096, random = seeded(1) } = {}) {
    this.stream = "stream-1";
    this.ring = ring;
    this.end = 0; // output written so far
    this.finished = false;
    this.exit = { code: 0 };
    this.input = [];
    this.known = new Map(); // attachment -> {accepted, signals}
    this.signals = [];
    this.sizes = [];
    this.attaches = [];
    this.live = 0;
    this.violations = 0;
    this._inputWindow = inputWindow;
    this._random = random;
    this.link = null;
  }

  get start() {
    return Math.max(0, this.end - this.ring);
  }

  /** A new link, seen from the owner: bytes in through `receive`, out of `take`. */
  connect() {
    this.link = {
      decoder: new FrameDecoder(),
      out: [encodeControl(TYPE.HELLO, 0, 0, { version: 1, software: "fake" })],
      id: 0,
      lastId: 0,
      next: 0,
      limit: 0,
      granted: 0,
      finSent: false,
      greeted: false,
    };
  }

  send(type, channel, fields, id = this.link.id) {
    this.link.out.push(encodeControl(type, id, channel, fields));
  }

  receive(bytes) {
    for (const frame of this.link.decoder.feed(bytes)) {
      if (frame.type === TYPE.DATA) this._data(frame);
      else this._control(frame.type, frame.stream, frame.channel, decode(frame.payload));
    }
  }

  _data({ stream, channel, offset, bytes }) {
    if (stream !== this.link.id) return; // late
    const record = this.known.get(this.link.attachment);
    assert.equal(channel, 0);
    assert.equal(offset, record.accepted, "input goes on where it stopped");
    assert.ok(offset + bytes.length <= this.link.granted, "input stays within its credit");
    for (const byte of bytes) this.input.push(byte);
    record.accepted += bytes.length;
    if (this.link.granted - record.accepted < this._inputWindow / 2) {
      this.link.granted = record.accepted + this._inputWindow;
      this.send(TYPE.CREDIT, 0, { ack: record.accepted, up_to: this.link.granted });
    }
  }

  _control(type, id, channel, fields) {
    const { link } = this;
    if (!link.greeted) {
      assert.equal(type, TYPE.HELLO, "HELLO comes first");
      link.greeted = true;
      return;
    }
    if (type === TYPE.ATTACH) return this._attach(id, fields);
    if (type === TYPE.PING) return this.send(TYPE.PONG, 0, { id: fields.id }, 0);
    if (type === TYPE.GOAWAY) return this.goaways?.push(fields);
    if (id !== link.id) return;
    if (type === TYPE.CREDIT) {
      assert.equal(channel, 1);
      assert.ok(fields.ack <= link.next, "nothing is acknowledged that was not sent");
      const record = this.known.get(link.attachment);
      assert.ok(fields.ack >= record.acknowledged, "an acknowledgement is never taken back");
      assert.ok(fields.up_to >= link.limit, "credit is never taken back");
      record.acknowledged = fields.ack;
      link.limit = fields.up_to;
      if (!link.inputOpen && fields.ack >= this.live) this._openInput();
    } else if (type === TYPE.RESIZE) this.sizes.push([fields.columns, fields.rows]);
    else if (type === TYPE.SIGNAL) {
      const record = this.known.get(link.attachment);
      if (fields.number > record.signals) {
        record.signals = fields.number;
        this.signals.push(fields.name);
      }
    } else if (type === TYPE.DETACH) {
      this.send(TYPE.CLOSED, 0, { reason: "detached" });
      link.id = -1;
    }
  }

  _openInput() {
    const record = this.known.get(this.link.attachment);
    this.link.inputOpen = true;
    this.link.granted = record.accepted + this._inputWindow;
    this.send(TYPE.CREDIT, 0, { up_to: this.link.granted });
  }

  _attach(id, fields) {
    assert.ok(id % 2 === 1 && id > this.link.lastId, "ids of a dialer are odd and grow");
    this.attaches.push(fields);
    const { link } = this;
    Object.assign(link, { id, lastId: id, attachment: fields.attachment, finSent: false });
    if (fields.resume && fields.resume.stream !== this.stream) {
      this.send(TYPE.REFUSED, 0, { code: "gone" });
      link.id = -1;
      return;
    }
    const resumed = this.known.has(fields.attachment);
    if (!resumed) this.known.set(fields.attachment, { accepted: 0, signals: 0, acknowledged: 0 });
    const record = this.known.get(fields.attachment);
    const have = fields.resume ? fields.resume.have[1] : 0;
    const from = Math.max(have, this.start);
    if (!fields.resume) {
      this.live = this.end;
      record.acknowledged = 0;
    }
    link.next = have;
    link.limit = from + fields.window[1];
    link.inputOpen = this.live <= from;
    link.granted = record.accepted + (link.inputOpen ? this._inputWindow : 0);
    this.send(TYPE.ATTACHED, 0, {
      stream: this.stream, tag: fields.tag, kind: fields.kind, mode: fields.mode, resumed,
      from: new Map([[1, from]]), live: this.live, accepted: record.accepted,
      credit: link.granted, signals: record.signals,
    });
    if (!fields.resume) link.next = from;
  }

  /** Write output, and send what credit allows in frames of random size. */
  produce(count = 0) {
    this.end += count;
  }

  /** Return bytes for the client. */
  take() {
    const { link } = this;
    if (link.id > 0) {
      if (link.next < this.start) {
        this.send(TYPE.GAP, 1, { from: link.next, to: this.start });
        link.next = this.start;
      }
      while (link.next < Math.min(this.end, link.limit)) {
        const most = Math.min(this.end, link.limit) - link.next;
        const count = Math.min(most, 1 + this._random.below(3000));
        link.out.push(encodeData(link.id, 1, link.next, pattern(link.next, link.next + count)));
        link.next += count;
      }
      if (this.finished && link.next === this.end && !link.finSent) {
        link.finSent = true;
        this.send(TYPE.FIN, 1, { at: this.end });
        this.send(TYPE.EXIT, 0, this.exit);
      }
    }
    const out = Buffer.concat(link.out);
    link.out = [];
    return new Uint8Array(out);
  }
}
