/** The shell around the protocol: one WebSocket at a time, when to try again, when to stop. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Final, Trunk } from "../../web/static/trunk.js";
import { delayBefore, nextAttempt } from "../../web/static/trunk/backoff.js";
import { encodeControl, encodeData, FrameDecoder, TYPE } from "../../web/static/trunk/frames.js";
import { decode } from "../../web/static/trunk/msgpack.js";
import { FakeOwner, pattern, seeded } from "./fake_owner.mjs";

const OPTIONS = { attachment: "attachment-0123456789", kind: "pty", tag: "main", start: {} };

/** A clock, timers, and WebSockets that lead to a FakeOwner. */
class World {
  constructor({ reachable = true } = {}) {
    this.time = 1000;
    this.timers = new Map();
    this.sockets = [];
    this.reachable = reachable;
    this.owner = new FakeOwner({ inputWindow: 1 << 20 });
    this.owner.goaways = [];
    this.drained = true;
    this.states = [];
    this.connects = 0;
    this.data = [];
    this.endings = [];
    this.trunk = new Trunk({
      connect: async () => {
        this.connects += 1;
        await this.beforeConnect?.();
        return { url: "ws://test/", protocols: ["trunk.1", `trunk.ticket.${this.connects}`] };
      },
      onstate: ({ name }) => this.states.push(name),
      world: {
        openWebSocket: (url, protocols) => this.open(url, protocols),
        setTimer: (callback, delay) => {
          const timer = {};
          this.timers.set(timer, { callback, at: this.time + delay });
          return timer;
        },
        clearTimer: (timer) => this.timers.delete(timer),
        now: () => this.time,
        random: () => 0.5,
      },
    });
  }

  open(url, protocols) {
    assert.equal(url, "ws://test/");
    const socket = {
      protocols, protocol: this.protocol ?? "trunk.1", readyState: 0, bufferedAmount: 0, sent: 0,
      waiting: [],
      send: (bytes) => {
        assert.equal(socket.readyState, 1);
        socket.sent += bytes.length;
        if (!this.drained) socket.bufferedAmount += bytes.length;
        socket.waiting.push(bytes.slice());
      },
      close: (code, reason) => {
        socket.readyState = 3;
        socket.closed = { code, reason };
      },
    };
    this.sockets.push(socket);
    return socket;
  }

  get socket() {
    return this.sockets.at(-1);
  }

  attach() {
    this.attachment = this.trunk.attach(OPTIONS, {
      ondata: (bytes, _, done) => {
        this.data.push(bytes.slice());
        done();
      },
      onclosed: (ending) => this.endings.push(ending),
    });
  }

  /** Let everything happen that needs no time. */
  async settle() {
    for (let round = 0; round < 30; round++) {
      await Promise.resolve();
      const { socket } = this;
      if (!socket || socket.readyState === 3) continue;
      if (socket.readyState === 0) {
        if (!this.reachable) {
          socket.readyState = 3;
          socket.onclose({ code: 1006, reason: "" });
        } else if (!this.silent) {
          socket.readyState = 1;
          this.owner.connect();
          socket.onopen();
        }
        continue;
      }
      if (this.silent) continue;
      for (const bytes of socket.waiting.splice(0)) this.owner.receive(bytes);
      const out = this.owner.take();
      if (out.length > 0) this.deliver(out);
    }
  }

  deliver(bytes) {
    this.socket.onmessage({ data: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length) });
  }

  /** Let time pass, timer by timer. */
  async pass(milliseconds) {
    const until = this.time + milliseconds;
    await this.settle();
    for (;;) {
      const [timer, next] = [...this.timers].sort(([, a], [, b]) => a.at - b.at)[0] ?? [];
      if (next === undefined || next.at > until) break;
      this.timers.delete(timer);
      this.time = Math.max(this.time, next.at);
      next.callback();
      await this.settle();
    }
    this.time = until;
  }

  cut(reason = "") {
    const { socket } = this;
    socket.readyState = 3;
    socket.onclose({ code: 1006, reason });
  }
}

test("connects when something is attached, with a fresh ticket for every try, and resumes", async () => {
  const world = new World();
  assert.equal(world.connects, 0, "nothing is opened for nothing");
  world.attach();
  world.owner.produce(100);
  await world.pass(10);
  assert.deepEqual(world.states, ["connecting", "open"]);
  world.attachment.write(pattern(0, 50));
  await world.pass(10);
  world.cut();
  world.attachment.write(pattern(50, 80)); // typed while there is no link
  world.owner.produce(100);
  await world.pass(300);
  assert.deepEqual(world.states.slice(2), ["waiting", "connecting", "open"]);
  assert.deepEqual(world.socket.protocols, ["trunk.1", "trunk.ticket.2"]);
  assert.deepEqual(Uint8Array.from(world.owner.input), pattern(0, 80));
  assert.deepEqual(new Uint8Array(Buffer.concat(world.data)), pattern(0, 200));
  assert.ok(world.owner.attaches[1].resume);
  const { links, failures, unsent } = world.trunk.statistics();
  assert.deepEqual({ links, failures, unsent }, { links: 2, failures: 1, unsent: 0 });
  world.trunk.close();
  assert.deepEqual([world.trunk.state.name, world.timers.size], ["closed", 0]);
});

test("backs off while the server cannot be reached, and tries at once when told to", async () => {
  const world = new World({ reachable: false });
  world.attach();
  await world.pass(60_000);
  assert.ok(world.connects > 6 && world.connects < 20, `${world.connects} tries in a minute`);
  const before = world.connects;
  world.reachable = true;
  world.trunk.retryNow();
  await world.settle();
  assert.equal(world.connects, before + 1);
  assert.equal(world.trunk.state.name, "open");
});

test("a ticket that cannot be had now is tried again; a Final ends it", async () => {
  const world = new World();
  world.beforeConnect = () => {
    throw new Error("the server cannot be reached");
  };
  world.attach();
  await world.pass(1000);
  assert.ok(world.connects >= 2);
  assert.equal(world.trunk.state.message, "the server cannot be reached");
  world.beforeConnect = () => {
    throw new Final("login", "sign in");
  };
  await world.pass(20_000);
  assert.deepEqual(world.endings, [{ refused: false, reason: "login", message: "sign in" }]);
  assert.deepEqual([world.trunk.state.name, world.timers.size], ["closed", 0]);
});

test("a broken rule is said, closes the WebSocket, and is not tried again", async () => {
  const world = new World();
  world.attach();
  await world.pass(10);
  world.deliver(encodeData(1, 1, 7, Uint8Array.of(1)));
  assert.deepEqual(world.socket.closed, { code: 4002, reason: "protocol_error" });
  const said = world.socket.waiting.flatMap((bytes) => [...new FrameDecoder().feed(bytes)]).at(-1);
  assert.equal(said.type, TYPE.GOAWAY);
  assert.match(decode(said.payload).message, /bytes at offset 7, expected 0/);
  assert.equal(world.endings[0].reason, "protocol_error");
  await world.pass(60_000);
  assert.equal(world.connects, 1);
});

test("a text message and a server that speaks something else are protocol errors", async () => {
  const world = new World();
  world.attach();
  await world.pass(10);
  world.socket.onmessage({ data: "hello" });
  assert.equal(world.endings[0].reason, "protocol_error");
  const other = new World();
  other.protocol = "";
  other.attach();
  await other.pass(10);
  assert.equal(other.endings[0].reason, "protocol_error");
});

test("pings while nothing comes, and gives up a link that is silent for 30 s", async () => {
  const world = new World();
  world.attach();
  await world.pass(35_000);
  assert.equal(world.connects, 1, "a peer that answers is alive");
  assert.equal(typeof world.trunk.statistics().roundTrip, "number");
  world.silent = true;
  await world.pass(24_000); // it was heard last 5 s before
  assert.equal(world.trunk.state.name, "open");
  await world.pass(2_000);
  assert.notEqual(world.trunk.state.name, "open");
  assert.equal(world.trunk.state.reason, "connection_lost");
});

test("after a hint, a link that does not answer within 3 s is given up; a good one is kept", async () => {
  const world = new World();
  world.attach();
  await world.pass(1000);
  world.trunk.hint();
  await world.pass(5000);
  assert.equal(world.connects, 1);
  world.silent = true;
  world.trunk.hint();
  await world.pass(2900);
  assert.equal(world.trunk.state.name, "open");
  await world.pass(150);
  assert.equal(world.trunk.state.name, "waiting");
});

test("a WebSocket that never opens is given up", async () => {
  const world = new World();
  world.silent = true;
  world.attach();
  await world.pass(14_000);
  assert.equal(world.connects, 1);
  await world.pass(3_000);
  assert.equal(world.connects, 2);
});

test("draining: comes back after `retry_after`, and resumes", async () => {
  const world = new World();
  world.attach();
  await world.pass(10);
  world.deliver(encodeControl(TYPE.GOAWAY, 0, 0, { reason: "draining", retry_after: 8 }));
  await world.settle();
  assert.equal(world.trunk.state.name, "open", "streams are not affected");
  world.cut("draining");
  await world.pass(7_900);
  assert.equal(world.connects, 1);
  await world.pass(3_000);
  assert.equal(world.connects, 2);
  assert.ok(world.owner.attaches[1].resume);
});

test("GOAWAY, or a close text, with a final reason ends everything", async () => {
  const world = new World();
  world.attach();
  await world.pass(10);
  world.deliver(encodeControl(TYPE.GOAWAY, 0, 0, { reason: "revoked", message: "bye" }));
  await world.settle();
  assert.deepEqual(world.endings, [{ refused: false, reason: "revoked", message: "bye" }]);
  const other = new World();
  other.attach();
  await other.pass(10);
  other.cut("session_ended");
  assert.equal(other.endings[0].reason, "session_ended");
  await other.pass(60_000);
  assert.equal(other.connects, 1);
});

test("when the process has ended, a lost link is not mended for nothing", async () => {
  const world = new World();
  world.owner.finished = true;
  world.attach();
  await world.pass(10);
  assert.deepEqual(world.attachment.exit, { code: 0, signal: null });
  world.cut();
  await world.pass(60_000);
  assert.deepEqual([world.connects, world.trunk.state.name], [1, "idle"]);
  world.owner.finished = false;
  world.attach();
  await world.pass(10);
  assert.equal(world.trunk.state.name, "open");
});

test("an agent that was lost is waited for, with back-off", async () => {
  const world = new World();
  world.attach();
  await world.pass(3_000);
  world.owner.send(TYPE.CLOSED, 0, { reason: "agent_lost" });
  world.owner.link.id = -1;
  await world.settle();
  assert.deepEqual([world.trunk.state.name, world.trunk.state.reason], ["waiting", "agent_lost"]);
  await world.pass(300);
  assert.equal(world.trunk.state.name, "open");
  assert.equal(world.owner.attaches.length, 2);
});

test("a slow network: data waits, control frames pass", async () => {
  const world = new World();
  world.attach();
  await world.pass(10);
  world.drained = false;
  const before = world.socket.sent;
  world.attachment.write(new Uint8Array(1_000_000));
  await world.pass(10);
  const ahead = world.socket.sent - before;
  assert.ok(ahead < 256 * 1024, `${ahead} bytes handed over`);
  const held = world.socket.sent;
  world.attachment.signal("INT");
  await world.pass(1);
  assert.ok(world.socket.sent > held && world.socket.sent < held + 200);
  assert.deepEqual(world.owner.signals, ["INT"]);
  world.drained = true;
  world.socket.bufferedAmount = 0;
  await world.pass(100);
  assert.equal(world.owner.input.length, 1_000_000);
});

test("what an abandoned try still does is ignored", async () => {
  const world = new World();
  let release = () => {};
  world.beforeConnect = () => new Promise((resolve) => (release = resolve));
  world.attach();
  await world.settle();
  world.trunk.close();
  release();
  await world.settle();
  assert.equal(world.sockets.length, 0);
  assert.throws(() => world.attach(), /closed/);
});

test("back-off: the first try is quick, later ones spread out up to 10 s", () => {
  const random = seeded(3);
  for (let round = 0; round < 500; round++) {
    const first = delayBefore(0, random());
    assert.ok(first >= 50 && first <= 150);
    for (let attempt = 1; attempt < 40; attempt++) {
      const delay = delayBefore(attempt, random());
      const ceiling = Math.min(250 * 2 ** (attempt - 1), 10_000);
      assert.ok(delay >= ceiling / 2 && delay <= ceiling);
    }
    const asked = delayBefore(4, random(), 20);
    assert.ok(asked >= 20_000 && asked <= 25_200);
    assert.ok(delayBefore(0, random(), 1e9) <= 300_000 * 1.25 + 150);
  }
  assert.equal(nextAttempt(5, null), 6);
  assert.equal(nextAttempt(5, 1_000), 3);
  assert.equal(nextAttempt(0, 1_000), 1);
  assert.equal(nextAttempt(5, 2_000), 0);
});
