/** One attachment on one link, frame by frame: what is legal, and what is refused. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Attachment } from "../../web/static/trunk/attachment.js";
import { Connection } from "../../web/static/trunk/connection.js";
import {
  encodeControl, encodeData, FrameDecoder, TYPE, TYPE_NAMES,
} from "../../web/static/trunk/frames.js";
import { decode } from "../../web/static/trunk/msgpack.js";
import { ProtocolError } from "../../web/static/trunk/reasons.js";

const ID = "attachment-0123456789";
const bytes = (text) => new TextEncoder().encode(text);

/** A connection whose peer is the test. */
class Bench {
  constructor(options = {}) {
    this.log = [];
    this.dones = [];
    this.retries = [];
    this.goaways = [];
    const log = this.log;
    this.handlers = {
      onattached: ({ fresh, lostInput }) => log.push(`attached fresh=${fresh} lost=${lostInput}`),
      ondata: (data, { offset, replay }, done) => {
        log.push(`${replay ? "replay" : "data"} ${offset} ${Buffer.from(data)}`);
        this.dones.push(done);
      },
      ongap: ({ from, to }, done) => {
        log.push(`gap ${from}..${to}`);
        this.dones.push(done);
      },
      onexit: ({ code, signal }) => log.push(`exit ${code ?? signal}`),
      onclosed: ({ refused, reason }) => log.push(`${refused ? "refused" : "closed"} ${reason}`),
    };
    this.generations = new Map();
    this.attachment = new Attachment(
      { attachment: ID, kind: "pty", tag: "main", start: {}, window: 100, ...options },
      this.handlers,
    );
    this.link();
  }

  link() {
    this.connection?.unbindAll();
    this.connection = new Connection({
      software: "test",
      now: 0,
      onoutput() {},
      onretry: (reason) => this.retries.push(reason),
      ongoaway: (goaway) => this.goaways.push(goaway),
    });
    this.decoder = new FrameDecoder();
    this.connection.attach(this.attachment);
    this.get(TYPE.HELLO, 0, 0, { version: 1, software: "x" });
  }

  /** Let the client receive frames. */
  feed(...frames) {
    this.connection.receive(new Uint8Array(Buffer.concat(frames)), 0);
  }

  get(type, stream, channel, fields) {
    this.feed(encodeControl(type, stream, channel, fields));
  }

  attached(fields = {}, id = 1) {
    const answer = {
      stream: "s1", tag: "main", kind: "pty", mode: this.attachment.options.mode,
      from: new Map([[1, 0]]), credit: 50, ...fields,
    };
    this.get(TYPE.ATTACHED, id, 0, answer);
  }

  /** What the client has sent since, as text. */
  sent() {
    const out = [];
    for (const frame of this.connection.nextSend(1e6).flatMap((f) => [...this.decoder.feed(f)])) {
      if (frame.type === TYPE.DATA) out.push(`DATA ${frame.stream} ${frame.offset} ${Buffer.from(frame.bytes)}`);
      else if (![TYPE.HELLO, TYPE.PING].includes(frame.type)) {
        const fields = decode(frame.payload);
        if (frame.type === TYPE.ATTACH) {
          // It comes from the clock; what counts is that it grows.
          const { attachment, generation } = fields;
          assert.ok(generation > (this.generations.get(attachment) ?? 0));
          this.generations.set(attachment, generation);
          delete fields.generation;
        }
        out.push(`${TYPE_NAMES[frame.type]} ${frame.stream} ${JSON.stringify(fields)}`);
      }
    }
    return out;
  }
}

test("attach, type, read, credit, exit", () => {
  const bench = new Bench({ columns: 80, rows: 24 });
  assert.deepEqual(bench.sent(), [
    `ATTACH 1 {"attachment":"${ID}","kind":"pty","tag":"main","mode":"control","replay":"all",` +
      '"window":{"1":100},"columns":80,"rows":24,"start":{}}',
  ]);
  assert.ok(bench.attachment.write(bytes("early")));
  assert.deepEqual(bench.sent(), [], "nothing is sent before there is credit");
  bench.attached({ accepted: 7, credit: 10 });
  assert.deepEqual(bench.sent(), ["DATA 1 7 ear"]);
  bench.get(TYPE.CREDIT, 1, 0, { ack: 10, up_to: 1000 });
  assert.deepEqual(bench.sent(), ["DATA 1 10 ly"]);
  bench.feed(encodeData(1, 1, 0, bytes("a".repeat(49))));
  bench.dones.shift()();
  assert.deepEqual(bench.sent(), [], "not yet half a window");
  bench.feed(encodeData(1, 1, 49, bytes("b")));
  assert.deepEqual(bench.sent(), [], "credit is not granted on receipt");
  bench.dones.shift()();
  assert.deepEqual(bench.sent(), ['CREDIT 1 {"ack":50,"up_to":150}']);
  bench.feed(encodeData(1, 1, 50, bytes("c")));
  bench.get(TYPE.FIN, 1, 1, { at: 51 });
  bench.get(TYPE.EXIT, 1, 0, { code: 3 });
  bench.dones.shift()();
  assert.deepEqual(bench.sent(), ['CREDIT 1 {"ack":51,"up_to":151}'], "the end is acknowledged");
  assert.equal(bench.log.at(-1), "exit 3");
  assert.ok(bench.attachment.ended);
  assert.ok(!bench.attachment.write(bytes("x")), "nobody reads any more");
  bench.get(TYPE.CLOSED, 1, 0, { reason: "exited" });
  assert.equal(bench.log.at(-1), "exit 3", "the exit says it all");
});

test("bytes on both sides of `live` are handed over apart, and `live` is acknowledged at once", () => {
  const bench = new Bench();
  bench.attached({ live: 5, credit: 0 });
  bench.attachment.write(bytes("typed"));
  bench.sent();
  bench.feed(encodeData(1, 1, 0, bytes("oldernewer")));
  assert.deepEqual(bench.log.slice(1), ["replay 0 older", "data 5 newer"]);
  assert.deepEqual(bench.sent(), []);
  bench.dones[0]();
  assert.deepEqual(bench.sent(), ['CREDIT 1 {"ack":5,"up_to":105}']);
  bench.get(TYPE.CREDIT, 1, 0, { up_to: 20 });
  assert.deepEqual(bench.sent(), ["DATA 1 0 typed"], "what was typed meanwhile is kept");
});

test("what the server must not send closes the link: nothing is repeated or skipped silently", () => {
  const cases = {
    "a byte twice": (b) => b.feed(encodeData(1, 1, 0, bytes("ab")), encodeData(1, 1, 1, bytes("b"))),
    "a byte left out": (b) => b.feed(encodeData(1, 1, 1, bytes("b"))),
    "beyond the credit": (b) => b.feed(encodeData(1, 1, 0, bytes("x".repeat(101)))),
    "bytes on the input channel": (b) => b.feed(encodeData(1, 0, 0, bytes("x"))),
    "bytes on a channel that a terminal has not": (b) => b.feed(encodeData(1, 2, 0, bytes("x"))),
    "a gap elsewhere": (b) => b.get(TYPE.GAP, 1, 1, { from: 1, to: 5 }),
    "a gap backwards": (b) => b.get(TYPE.GAP, 1, 1, { from: 0, to: 0 }),
    "FIN elsewhere": (b) => b.get(TYPE.FIN, 1, 1, { at: 1 }),
    "bytes after FIN": (b) => {
      b.get(TYPE.FIN, 1, 1, { at: 0 });
      b.feed(encodeData(1, 1, 0, bytes("x")));
    },
    "EXIT before FIN": (b) => b.get(TYPE.EXIT, 1, 0, { code: 0 }),
    "EXIT with both": (b) => {
      b.get(TYPE.FIN, 1, 1, { at: 0 });
      b.get(TYPE.EXIT, 1, 0, { code: 0, signal: "KILL" });
    },
    "an acknowledgement of what was not sent": (b) => b.get(TYPE.CREDIT, 1, 0, { ack: 1 }),
    "CREDIT for output": (b) => b.get(TYPE.CREDIT, 1, 1, { up_to: 1 }),
    "ATTACHED twice": (b) => b.attached(),
    "a stream that was never opened": (b) => b.feed(encodeData(3, 1, 0, bytes("x"))),
    "a stream with an even id": (b) => b.get(TYPE.CLOSED, 2, 0, { reason: "exited" }),
    "a frame that only clients send": (b) => b.get(TYPE.RESIZE, 1, 0, { columns: 1, rows: 1 }),
    "HELLO twice": (b) => b.get(TYPE.HELLO, 0, 0, { version: 1 }),
  };
  for (const [name, act] of Object.entries(cases)) {
    const bench = new Bench();
    bench.attached();
    assert.throws(() => act(bench), ProtocolError, name);
  }
  for (const [name, fields] of Object.entries({
    "another tag": { tag: "other" },
    "another kind": { kind: "exec" },
    "another mode": { mode: "view" },
    "no beginning": { from: new Map() },
    "negative credit": { accepted: 10, credit: 9 },
  })) {
    assert.throws(() => new Bench().attached(fields), ProtocolError, name);
  }
  const early = new Bench();
  assert.throws(() => early.feed(encodeData(1, 1, 0, bytes("x"))), ProtocolError);
});

test("the first frame must be HELLO of our version", () => {
  for (const frame of [
    encodeControl(TYPE.PING, 0, 0, { id: 1 }),
    encodeControl(TYPE.HELLO, 0, 0, { version: 2 }),
    encodeData(1, 1, 0, bytes("x")),
  ]) {
    const connection = new Connection({
      software: "t", now: 0, onoutput() {}, onretry() {}, ongoaway() {},
    });
    assert.throws(() => connection.receive(frame, 0), ProtocolError);
  }
});

test("a resume asks for what is missing, and sends again what was not taken", () => {
  const bench = new Bench();
  bench.attached();
  bench.attachment.write(bytes("0123456789"));
  bench.feed(encodeData(1, 1, 0, bytes("abcdef")));
  assert.deepEqual(bench.sent().slice(1), ["DATA 1 0 0123456789"]);
  bench.link();
  assert.deepEqual(bench.sent(), [
    `ATTACH 1 {"attachment":"${ID}","kind":"pty","tag":"main","mode":"control","replay":"all",` +
      '"window":{"1":94},"resume":{"stream":"s1","have":{"1":6}}}',
  ]);
  bench.attached({ resumed: true, from: new Map([[1, 6]]), accepted: 4, credit: 50 });
  assert.deepEqual(bench.sent(), ["DATA 1 4 456789"]);
  bench.feed(encodeData(1, 1, 6, bytes("g")));
  assert.deepEqual(bench.log, [
    "attached fresh=true lost=0", "data 0 abcdef", "attached fresh=false lost=0", "data 6 g",
  ]);
});

test("a resume that contradicts what is known is refused", () => {
  for (const [name, fields] of Object.entries({
    "input accepted that was never sent": { accepted: 11 },
    "output from before": { from: new Map([[1, 5]]) },
    "another stream": { stream: "s2" },
  })) {
    const bench = new Bench();
    bench.attached();
    bench.attachment.write(bytes("0123456789"));
    bench.feed(encodeData(1, 1, 0, bytes("abcdef")));
    bench.sent();
    bench.link();
    assert.throws(
      () => bench.attached({ resumed: true, from: new Map([[1, 6]]), accepted: 10, ...fields }),
      ProtocolError,
      name,
    );
  }
});

test("an owner that forgot the attachment: output goes on, doubtful input is given up and told", () => {
  const bench = new Bench();
  bench.attached({ credit: 4 });
  bench.attachment.write(bytes("sentkept"));
  bench.sent();
  bench.link();
  bench.sent();
  bench.attached({ resumed: false, accepted: 100, credit: 200 });
  assert.equal(bench.log.at(-1), "attached fresh=false lost=4");
  assert.deepEqual(bench.sent(), ["DATA 1 100 kept"]);
});

test("`gone` begins afresh on the same link, under a new id, without starting anything", () => {
  const bench = new Bench({ takeover: true });
  bench.attached();
  const stale = [];
  bench.feed(encodeData(1, 1, 0, bytes("old")));
  stale.push(bench.dones.shift());
  bench.link();
  bench.sent();
  bench.get(TYPE.REFUSED, 1, 0, { code: "gone" });
  const [again] = bench.sent();
  assert.match(again, /^ATTACH 3 /);
  assert.doesNotMatch(again, /resume|start|takeover/);
  bench.attached({ stream: "s2", from: new Map([[1, 40]]) }, 3);
  bench.feed(encodeData(3, 1, 40, bytes("new")));
  stale[0](); // belongs to a past that is gone
  assert.equal(bench.attachment.statistics().outputs[1].consumed, 40);
  bench.feed(encodeData(1, 1, 3, bytes("late"))); // of the id that was in use: ignored
  assert.deepEqual(bench.log.slice(-2), ["attached fresh=true lost=0", "data 40 new"]);
});

test("a gap is handed over in its place and counts as consumed only when it was", () => {
  const bench = new Bench();
  bench.attached();
  bench.feed(encodeData(1, 1, 0, bytes("ab")));
  bench.get(TYPE.GAP, 1, 1, { from: 2, to: 500 });
  bench.sent();
  assert.throws(() => bench.feed(encodeData(1, 1, 500, bytes("x"))), /credit given up to 100/);
  const other = new Bench();
  other.attached();
  other.get(TYPE.GAP, 1, 1, { from: 0, to: 500 });
  other.dones.shift()();
  other.feed(encodeData(1, 1, 500, bytes("x")));
  assert.deepEqual(other.log.slice(1), ["gap 0..500", "data 500 x"]);
});

test("each close reason and refusal has its sequel", () => {
  for (const [reason, sequel] of Object.entries({
    exited: "stop", detached: "stop", superseded: "stop", taken_over: "stop", expired: "stop",
    revoked: "stop", session_ended: "stop", session_stopped: "stop", protocol_error: "stop", agent_lost: "retry",
    draining: "retry", slow_reader: "retry", internal_error: "retry", too_far_behind: "again",
  })) {
    const bench = new Bench();
    bench.attached();
    bench.sent();
    bench.get(TYPE.CLOSED, 1, 0, { reason });
    assert.equal(bench.log.includes(`closed ${reason}`), sequel === "stop", reason);
    assert.equal(bench.attachment.ended, sequel === "stop", reason);
    assert.deepEqual(bench.retries, sequel === "retry" ? [reason] : [], reason);
    assert.equal(bench.sent().length, sequel === "again" ? 1 : 0, reason);
  }
  for (const code of [
    "bad_request", "forbidden", "not_found", "conflict", "busy", "gone", "start_failed",
    "unsupported", "ending",
  ]) {
    const bench = new Bench();
    bench.get(TYPE.REFUSED, 1, 0, { code });
    assert.deepEqual(bench.log, [`refused ${code}`]);
  }
  const limited = new Bench();
  limited.get(TYPE.REFUSED, 1, 0, { code: "limit" });
  assert.deepEqual([limited.log, limited.retries], [[], ["limit"]]);
});

test("the last size counts; signals go out once; a viewer sends neither, nor input", () => {
  const bench = new Bench({ columns: 80, rows: 24 });
  bench.attachment.resize(90, 30);
  bench.attachment.resize(100, 40);
  bench.attachment.signal("TERM");
  bench.sent();
  bench.attached();
  assert.deepEqual(bench.sent(), [
    'SIGNAL 1 {"number":1,"name":"TERM"}', 'RESIZE 1 {"columns":100,"rows":40}',
  ]);
  bench.attachment.resize(100, 40);
  assert.deepEqual(bench.sent(), []);
  const viewer = new Bench({ mode: "view", columns: 80, rows: 24 });
  assert.doesNotMatch(viewer.sent()[0], /columns/);
  viewer.attached();
  viewer.attachment.resize(10, 10);
  viewer.attachment.signal("TERM");
  assert.ok(!viewer.attachment.write(bytes("x")));
  assert.deepEqual(viewer.sent(), []);
});

test("input is bounded: all of a piece is taken or nothing", () => {
  const bench = new Bench();
  const piece = new Uint8Array(3 * 1024 * 1024);
  assert.ok(bench.attachment.write(piece));
  assert.ok(!bench.attachment.write(piece));
  assert.equal(bench.attachment.statistics().input.kept, piece.length);
  assert.ok(bench.attachment.write(piece.subarray(0, 1024 * 1024)));
});

test("end of input: FIN after the last byte, again after a resume; STOP forgets what waits", () => {
  const bench = new Bench({ kind: "exec" });
  const from = new Map([[1, 0], [2, 0]]);
  bench.attachment.write(bytes("abc"));
  bench.attachment.end();
  bench.sent();
  bench.attached({ kind: "exec", from });
  assert.deepEqual(bench.sent(), ["DATA 1 0 abc", 'FIN 1 {"at":3}']);
  bench.link();
  bench.sent();
  bench.attached({ kind: "exec", from, resumed: true, accepted: 2 });
  assert.deepEqual(bench.sent(), ["DATA 1 2 c", 'FIN 1 {"at":3}']);
  const stopped = new Bench();
  stopped.attached({ credit: 0 });
  stopped.attachment.write(bytes("abc"));
  stopped.get(TYPE.STOP, 1, 0, {});
  assert.equal(stopped.attachment.statistics().input.kept, 0);
  assert.ok(!stopped.attachment.write(bytes("d")));
});

test("attachments on one link take turns", () => {
  const bench = new Bench();
  const other = new Attachment({ attachment: ID + "x", kind: "pty", tag: "two" }, bench.handlers);
  bench.connection.attach(other);
  bench.attached({ credit: 1e6 });
  bench.get(TYPE.ATTACHED, 3, 0, {
    stream: "s9", tag: "two", kind: "pty", mode: "control", from: new Map([[1, 0]]), credit: 1e6,
  });
  bench.attachment.write(new Uint8Array(300_000));
  other.write(new Uint8Array(300_000));
  const order = bench.sent().filter((line) => line.startsWith("DATA")).map((line) => line.split(" ")[1]);
  assert.deepEqual([order.slice(0, 4).filter((id) => id === "1").length, order.length], [2, 10]);
});

// ---------------------------------------------------------------- screens

const screen = (data, at, more = {}) => ({ data: bytes(data), at, columns: 80, rows: 24, ...more });

/** A bench that logs screens and what is told of gaps. */
function screens(options) {
  const bench = new Bench({ replay: "screen", ...options });
  Object.assign(bench.handlers, {
    onscreen: ({ bytes: data, offset, columns, rows }) =>
      bench.log.push(`screen ${offset} ${columns}x${rows} ${Buffer.from(data)}`),
    ongap: ({ from, to, screen: follows }, done) => {
      bench.log.push(`gap ${from}..${to} ${follows ? "with a screen" : ""}`);
      done();
    },
  });
  return bench;
}

test("a screen in parts, and the bytes after it", () => {
  const bench = screens();
  bench.attached({ from: new Map([[1, 7]]), live: 7, screen: true });
  bench.get(TYPE.SCREEN, 1, 1, screen("dra", 7));
  bench.get(TYPE.SCREEN, 1, 1, screen("wn", 7, { last: true, columns: 100 }));
  bench.feed(encodeData(1, 1, 7, bytes("live")));
  assert.deepEqual(bench.log.slice(1), ["screen 7 100x24 drawn", "data 7 live"]);
});

test("a gap with a screen", () => {
  const bench = screens();
  bench.attached();
  bench.get(TYPE.GAP, 1, 1, { from: 0, to: 500, screen: true });
  bench.get(TYPE.SCREEN, 1, 1, screen("drawn", 500, { last: true }));
  assert.deepEqual(bench.log.slice(1), ["gap 0..500 with a screen", "screen 500 80x24 drawn"]);
});

test("a screen that was cut off is asked for again", () => {
  const bench = screens();
  const resumes = () =>
    bench.connection
      .nextSend(1e6)
      .flatMap((frame) => [...bench.decoder.feed(frame)])
      .filter(({ type }) => type === TYPE.ATTACH)
      .map(({ payload }) => decode(payload).resume);
  bench.attached({ from: new Map([[1, 7]]), live: 7, screen: true });
  bench.get(TYPE.SCREEN, 1, 1, screen("dra", 7));
  bench.link();
  assert.equal(resumes()[0].screen, true);
  bench.attached({ from: new Map([[1, 7]]), resumed: true });
  bench.get(TYPE.GAP, 1, 1, { from: 7, to: 9, screen: true });
  bench.get(TYPE.SCREEN, 1, 1, screen("whole", 9, { last: true }));
  bench.link();
  assert.equal(resumes()[0].screen ?? false, false);
  assert.deepEqual(bench.log.filter((line) => line.startsWith("screen")), ["screen 9 80x24 whole"]);
});

test("a screen out of its turn, for the wrong place or without an end", () => {
  const attached = { from: new Map([[1, 7]]), live: 7, screen: true };
  const tries = [
    [{}, (bench) => bench.get(TYPE.SCREEN, 1, 1, screen("x", 0, { last: true }))],
    [attached, (bench) => bench.get(TYPE.SCREEN, 1, 1, screen("x", 8))],
    [attached, (bench) => bench.get(TYPE.SCREEN, 1, 2, screen("x", 7))],
    [attached, (bench) => {
      for (let i = 0; i < 50; i++) bench.get(TYPE.SCREEN, 1, 1, screen("x".repeat(40_000), 7));
    }],
    [attached, (bench) => bench.get(TYPE.SCREEN, 1, 1, screen("x".repeat(49_153), 7))],
    [attached, (bench) => bench.get(TYPE.SCREEN, 1, 1, screen("x", 7, { rows: 0 }))],
  ];
  for (const [answer, act] of tries) {
    const bench = screens();
    bench.attached(answer);
    assert.throws(() => act(bench), ProtocolError);
  }
});
