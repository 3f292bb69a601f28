// What noVNC is given in place of a WebSocket.
import assert from "node:assert/strict";
import test from "node:test";

import { TrunkChannel } from "../../web/static/desktop/channel.js";
import { endingFor } from "../../web/static/desktop/endings.js";

const NAMES = { attachment: "a".repeat(32), tag: "desktop-1" };
/** What noVNC 1.7 asks of a channel (core/websock.js). */
const WANTED = ["send", "close", "binaryType", "onerror", "onmessage", "onopen", "protocol", "readyState"];

function open() {
  const world = { written: [], detached: 0, endings: [], attached: 0, full: false, events: [] };
  const trunk = {
    attach(options, handlers) {
      Object.assign(world, { options, handlers });
      return {
        ended: false,
        write(bytes) {
          if (!world.full) world.written.push(bytes);
          return !world.full;
        },
      };
    },
    detach: () => (world.detached += 1),
  };
  const channel = new TrunkChannel(trunk, NAMES, (ending) => world.endings.push(ending.reason), () => (world.attached += 1));
  channel.onopen = () => world.events.push("open");
  channel.onmessage = ({ data }) => world.events.push(...data);
  channel.onclose = ({ reason }) => world.events.push(`close ${reason}`);
  return { world, channel };
}

const attached = (fresh) => ({ fresh, started: fresh, stream: "s", pid: null, from: 0, live: 0, lostInput: 0 });

test("it has what noVNC looks for", () => {
  const { channel, world } = open();
  const found = [...Object.keys(channel), ...Object.getOwnPropertyNames(Object.getPrototypeOf(channel))];
  for (const name of WANTED) assert.ok(found.includes(name), name);
  assert.equal(world.options.kind, "vnc");
  assert.deepEqual(world.options.start, {});
});

test("a cut is not noticed", () => {
  const { channel, world } = open();
  assert.equal(channel.readyState, "connecting");
  world.handlers.onattached(attached(true));
  let done = 0;
  world.handlers.ondata(Uint8Array.of(1, 2), {}, () => (done += 1));
  world.handlers.onattached(attached(false));
  world.handlers.ondata(Uint8Array.of(3), {}, () => (done += 1));
  assert.deepEqual(world.events, ["open", 1, 2, 3]);
  assert.equal(done, 2);
  assert.equal(world.attached, 2);
  assert.equal(channel.readyState, "open");
});

test("what noVNC sends is copied: it uses its buffer again", () => {
  const { channel, world } = open();
  world.handlers.onattached(attached(true));
  const buffer = Uint8Array.of(1, 2, 3);
  channel.send(buffer.subarray(0, 2));
  buffer.fill(9);
  assert.deepEqual(world.written, [Uint8Array.of(1, 2)]);
});

for (const [name, end, reason] of [
  ["another connection", (world) => world.handlers.onattached(attached(true)), "gone"],
  ["a gap", (world) => world.handlers.ongap({}, () => {}), "too_far_behind"],
  ["the end of the desktop", (world) => world.handlers.onexit({ code: 0, signal: null }), "exited"],
  ["the end of the session", (world) => world.handlers.onclosed({ refused: false, reason: "expired", message: "" }), "expired"],
  ["noVNC", (_, channel) => channel.close(), "detached"],
  ["too much input", (world, channel) => {
    world.full = true;
    channel.send(Uint8Array.of(1));
  }, "too_much_input"],
]) {
  test(`it is closed once by ${name}`, async () => {
    const { channel, world } = open();
    world.handlers.onattached(attached(true));
    end(world, channel);
    channel.close();
    channel.send(Uint8Array.of(1));
    await null;
    assert.deepEqual(world.endings, [reason]);
    assert.deepEqual(world.events, ["open", `close ${reason}`]);
    assert.equal(world.detached, 1);
    assert.equal(channel.readyState, "closed");
  });
}

test("endings quote the server where that helps", () => {
  assert.match(endingFor("start_failed", "the desktop could not be started: no memory").text, /^The desktop .* no memory\.$/);
  assert.equal(endingFor("expired", "whatever").text.includes("whatever"), false);
  assert.match(endingFor("never_heard_of", "").text, /never_heard_of/);
});
