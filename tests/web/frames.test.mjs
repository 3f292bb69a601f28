import assert from "node:assert/strict";
import { test } from "node:test";

import {
  encodeControl, encodeData, FrameDecoder, MAX_CONTROL_BYTES, MAX_DATA_BYTES, TYPE,
} from "../../web/static/trunk/frames.js";
import { decodeMessage } from "../../web/static/trunk/messages.js";
import { decode, encode } from "../../web/static/trunk/msgpack.js";
import { ProtocolError } from "../../web/static/trunk/reasons.js";
import { pattern, seeded } from "./fake_owner.mjs";

const hex = (bytes) => Buffer.from(bytes).toString("hex");

test("the header is laid out as the spec draws it", () => {
  assert.equal(
    hex(encodeData(0x01020304, 2, 0x0a0b0c0d0e, Uint8Array.of(0xff, 0xfe))),
    "010002000102030400" + "00000a" + "0000000a0b0c0d0e" + "fffe",
  );
  assert.equal(hex(encodeControl(TYPE.DETACH, 5, 0, {})), "080000000000000500000001" + "80");
});

test("frames come out whole whatever the pieces, and the bytes of DATA as they come", () => {
  const data = pattern(0, 70_000);
  const wire = Buffer.concat([
    encodeControl(TYPE.FIN, 3, 1, { at: 9 }),
    encodeData(1, 1, 1000, data),
    encodeControl(0x7f, 1, 0, { x: "y".repeat(3000) }),
    encodeData(1, 1, 71_000, Uint8Array.of(1)),
  ]);
  for (const step of [1, 2, 11, 12, 13, 20, 21, 4096, wire.length]) {
    const decoder = new FrameDecoder();
    const control = [];
    const got = [];
    let offset = 1000;
    for (let at = 0; at < wire.length; at += step) {
      for (const frame of decoder.feed(new Uint8Array(wire.subarray(at, at + step)))) {
        if (frame.type === TYPE.DATA) {
          assert.equal(frame.offset, offset);
          offset += frame.bytes.length;
          got.push(frame.bytes.slice());
        } else control.push(frame.type);
      }
      assert.ok(decoder.bufferedBytes <= 12 + 3100);
    }
    assert.equal(decoder.bufferedBytes, 0);
    assert.deepEqual(control, [TYPE.FIN, 0x7f]);
    assert.equal(hex(Buffer.concat(got)), hex(data) + "01");
  }
});

test("impossible lengths and offsets are refused at the header", () => {
  const header = (type, length, rest = []) => {
    const bytes = new Uint8Array(12 + rest.length);
    bytes[0] = type;
    new DataView(bytes.buffer).setUint32(8, length);
    bytes.set(rest, 12);
    return bytes;
  };
  for (const bad of [
    header(TYPE.DATA, 8),
    header(TYPE.DATA, 0),
    header(TYPE.DATA, 9 + MAX_DATA_BYTES),
    header(TYPE.CREDIT, MAX_CONTROL_BYTES + 1),
    header(0xee, 0xffffffff),
    header(TYPE.DATA, 9, [0, 0x20, 0, 0, 0, 0, 0, 0]), // 2^53
    header(TYPE.DATA, 9, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
  ]) {
    assert.throws(() => [...new FrameDecoder().feed(bad)], ProtocolError, hex(bad));
  }
});

test("msgpack round trips at every boundary of its forms", () => {
  const values = [
    null, true, false, 0, 127, 128, 255, 256, 65535, 65536, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1,
    -1, -32, -33, -128, -129, -(2 ** 31), -(2 ** 53) + 1, 0.5, -1.25, "", "é🚀", "a".repeat(31),
    "a".repeat(32), "a".repeat(256), "a".repeat(70_000), [], [1, [2, ["x"]]], Array(16).fill(1),
  ];
  for (const value of values) assert.deepEqual(decode(encode(value)), value);
  const many = Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`k${i}`, i]));
  assert.deepEqual({ ...decode(encode(many)) }, many);
  assert.deepEqual({ ...decode(encode(new Map([[1, 5], [2, 6]]))) }, { 1: 5, 2: 6 });
  assert.equal(hex(encode(new Map([[1, 2]]))), "810102");
  assert.deepEqual(decode(encode(Uint8Array.of(1, 2))), Uint8Array.of(1, 2));
  assert.deepEqual({ ...decode(encode({ a: 1, b: undefined })) }, { a: 1 });
  assert.equal(decode(Uint8Array.of(0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)), 2n ** 64n - 1n);
  for (const bad of [NaN, Infinity, 2 ** 60, () => 0, Symbol("x")]) assert.throws(() => encode(bad));
});

test("bad msgpack is refused: nothing is allocated for lengths that are only declared", () => {
  for (const bad of [
    "", "c1", "c7", "d4", "8101", "81c001", "82a16101a16102", "a2ff", "a2fffe", "dbffffffff",
    "ddffffffff", "dfffffffff", "c6ffffffff", "cf00", "0101", "91".repeat(20) + "01",
  ]) {
    assert.throws(() => decode(Uint8Array.from(Buffer.from(bad, "hex"))), ProtocolError, bad);
  }
});

test("random bytes never do anything but decode or raise ProtocolError", () => {
  const random = seeded(42);
  for (let round = 0; round < 20_000; round++) {
    const bytes = Uint8Array.from({ length: random.below(40) }, () => random.below(256));
    try {
      decode(bytes);
    } catch (error) {
      assert.ok(error instanceof ProtocolError, String(error));
    }
    try {
      for (const frame of new FrameDecoder().feed(bytes)) {
        if (frame.type !== TYPE.DATA) decodeMessage(frame);
      }
    } catch (error) {
      assert.ok(error instanceof ProtocolError, String(error));
    }
  }
});

test("messages are checked field by field; unknown keys are ignored, missing ones have defaults", () => {
  const read = (type, fields) => decodeMessage({ type, stream: 1, channel: 0, payload: encode(fields) });
  assert.deepEqual(read(TYPE.CREDIT, { up_to: 5, later: [1] }), { ack: null, up_to: 5 });
  assert.deepEqual(read(TYPE.CLOSED, { reason: "exited" }), { reason: "exited", message: "" });
  assert.equal(read(0x55, {}), null);
  const attached = { stream: "s", tag: "t", kind: "pty", mode: "view", from: new Map([[1, 7]]) };
  assert.equal(read(TYPE.ATTACHED, attached).live, 0);
  for (const [type, fields] of [
    [TYPE.CREDIT, { ack: -1 }], [TYPE.CREDIT, { up_to: "9" }], [TYPE.GAP, { from: 1 }],
    [TYPE.FIN, {}], [TYPE.EXIT, { code: 256 }], [TYPE.CLOSED, { reason: "bored" }],
    [TYPE.CLOSED, { reason: "toString" }], [TYPE.REFUSED, { code: 7 }], [TYPE.PING, {}],
    [TYPE.ATTACHED, { ...attached, from: new Map([[9, 1]]) }], [TYPE.ATTACHED, { ...attached, from: [1] }],
    [TYPE.ATTACHED, { ...attached, mode: "god" }], [TYPE.ATTACH, {}], [TYPE.RESIZE, {}],
    [TYPE.GOAWAY, { reason: "draining", retry_after: -1 }], [TYPE.STOP, [1]], [TYPE.STOP, null],
  ]) {
    assert.throws(() => read(type, fields), ProtocolError, JSON.stringify([type, fields]));
  }
});
