/** Cut anywhere, resume: every byte arrives once and in order, in both directions. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Attachment } from "../../web/static/trunk/attachment.js";
import { Connection } from "../../web/static/trunk/connection.js";
import { byteAt, FakeOwner, pattern, seeded } from "./fake_owner.mjs";

const OUTPUT = 60_000;
const INPUT = 30_000;
const ID = "attachment-0123456789";

/** One client and one owner that live through many links; `cut` bytes per link, then it breaks. */
class Scene {
  constructor(seed, { ring = Infinity, window = 8192 } = {}) {
    this.random = seeded(seed);
    this.owner = new FakeOwner({ ring, random: this.random });
    this.pieces = []; // [offset, bytes] and gaps, as handed over
    this.dones = [];
    this.exits = [];
    this.endings = [];
    this.lost = 0;
    this.cuts = 0;
    this.typed = 0;
    this.attachment = new Attachment(
      { attachment: ID, kind: "pty", tag: "main", start: {}, columns: 80, rows: 24, window },
      {
        onattached: ({ lostInput }) => (this.lost += lostInput),
        ondata: (bytes, { offset }, done) => {
          this.pieces.push({ offset, bytes: bytes.slice() });
          this.dones.push(done);
        },
        ongap: ({ from, to }, done) => {
          this.pieces.push({ gap: [from, to] });
          this.dones.push(done);
        },
        onexit: (exit) => this.exits.push(exit),
        onclosed: (ending) => this.endings.push(ending),
      },
    );
  }

  /** Run one link until `budget` bytes have gone over it, or nothing is left to do. */
  link(budget) {
    const { random, owner } = this;
    const connection = new Connection({
      software: "test", now: 0, onoutput() {}, onretry: assert.fail, ongoaway: assert.fail,
    });
    owner.connect();
    connection.attach(this.attachment);
    let [up, down] = [new Uint8Array(0), new Uint8Array(0)];
    let idle = 0;
    while (budget > 0 && idle < 3) {
      if (owner.end < OUTPUT) owner.produce(Math.min(random.below(900), OUTPUT - owner.end));
      if (this.typed < INPUT) {
        const count = Math.min(random.below(400), INPUT - this.typed);
        if (this.attachment.write(pattern(this.typed, this.typed + count))) this.typed += count;
      }
      if (random() < 0.05) this.attachment.signal("INT");
      up = join(up, ...connection.nextSend(random.below(5000)));
      down = join(down, owner.take());
      let moved = 0;
      for (let turn = 0; turn < 4; turn++) {
        const some = 1 + random.below(2500);
        if (random() < 0.5) {
          const piece = up.subarray(0, Math.min(some, budget));
          up = up.subarray(piece.length);
          budget -= piece.length;
          moved += piece.length;
          owner.receive(piece.slice());
        } else {
          const piece = down.subarray(0, Math.min(some, budget));
          down = down.subarray(piece.length);
          budget -= piece.length;
          moved += piece.length;
          connection.receive(piece.slice(), 0);
        }
      }
      const dones = random.below(this.dones.length + 1);
      for (const done of this.dones.splice(0, dones)) done();
      idle = moved === 0 && this.dones.length === 0 ? idle + 1 : 0;
    }
    connection.unbindAll();
    this.cuts += 1;
  }
}

function join(...parts) {
  return new Uint8Array(Buffer.concat(parts));
}

test("input and output are complete, in order and once through hundreds of cuts", () => {
  let cuts = 0;
  for (let seed = 1; seed <= 12; seed++) {
    const scene = new Scene(seed);
    for (let n = 0; n < 60; n++) scene.link(1 + scene.random.below(n < 20 ? 300 : 4000));
    for (let n = 0; n < 50 && scene.exits.length === 0; n++) {
      scene.owner.finished = scene.owner.input.length === INPUT && scene.owner.end === OUTPUT;
      scene.link(200_000);
    }
    let offset = 0;
    for (const piece of scene.pieces) {
      assert.equal(piece.gap, undefined);
      assert.equal(piece.offset, offset, `seed ${seed}`);
      for (const byte of piece.bytes) assert.equal(byte, byteAt(offset++), `seed ${seed}`);
    }
    assert.equal(offset, OUTPUT);
    assert.deepEqual(Uint8Array.from(scene.owner.input), pattern(0, INPUT));
    assert.equal(scene.lost, 0);
    assert.deepEqual(scene.exits, [{ code: 0, signal: null }]);
    assert.deepEqual(scene.endings, []);
    cuts += scene.cuts;
  }
  assert.ok(cuts > 500, `${cuts} cuts`);
});

test("signals are taken once, and none is left out", () => {
  for (let seed = 100; seed < 110; seed++) {
    const scene = new Scene(seed);
    const sent = [];
    const signal = scene.attachment.signal.bind(scene.attachment);
    scene.attachment.signal = (name) => {
      sent.push(name);
      signal(name);
    };
    for (let n = 0; n < 30; n++) scene.link(1 + scene.random.below(2500));
    scene.attachment.signal = () => {};
    scene.link(500_000);
    assert.ok(sent.length > 0);
    assert.deepEqual(scene.owner.signals, sent);
  }
});

test("what a small ring has dropped comes as gaps that fit exactly between the bytes", () => {
  let gaps = 0;
  for (let seed = 200; seed < 208; seed++) {
    const scene = new Scene(seed, { ring: 5_000 });
    for (let n = 0; n < 40; n++) {
      scene.link(1 + scene.random.below(1500));
      // Nobody is attached: the stream goes on.
      scene.owner.produce(Math.min(scene.random.below(4_000), OUTPUT - scene.owner.end));
    }
    for (let n = 0; n < 10; n++) scene.link(100_000);
    let offset = 0;
    for (const piece of scene.pieces) {
      // The very first attachment may begin later than 0: it asked for what is still there.
      if (offset === 0 && piece.offset) offset = piece.offset;
      if (piece.gap) {
        assert.equal(piece.gap[0], offset);
        offset = piece.gap[1];
        gaps += 1;
      } else {
        assert.equal(piece.offset, offset);
        for (const byte of piece.bytes) assert.equal(byte, byteAt(offset++));
      }
    }
    assert.equal(offset, OUTPUT);
    assert.equal(scene.attachment.statistics().gaps, scene.pieces.filter((p) => p.gap).length);
  }
  assert.ok(gaps > 10, `${gaps} gaps`);
});

test("a reader that consumes nothing is never sent more than one window, through any cut", () => {
  const scene = new Scene(7, { window: 4096 });
  const keep = [];
  Object.defineProperty(scene, "dones", {
    value: { push: (done) => keep.push(done), length: 0, splice: () => [] },
  });
  for (let n = 0; n < 50; n++) scene.link(3000);
  const { received, consumed } = scene.attachment.statistics().outputs[1];
  assert.equal(consumed, 0);
  assert.equal(received, 4096);
  assert.ok(keep.length > 0);
});
