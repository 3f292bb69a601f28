/** Windows grow where a path needs it, and all of a trunk together no further than they may. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Growth, INITIAL_WINDOW, MAX_WINDOW, OutputWindow } from "../../web/static/trunk/windows.js";

/** Consume as fast as the window lets a sender send, half of it each 10 ms at 100 ms of round trip. */
function run(window, turns = 20, now = 0) {
  for (let turn = 0; turn < turns; turn++) {
    const count = Math.min(window.granted - window.received, window.size / 2);
    window.take(window.received, count);
    window.consume(window.received);
    window.renewal(false, now + turn * 10, 100);
  }
}

function begun(growth) {
  const window = new OutputWindow(INITIAL_WINDOW, MAX_WINDOW, growth);
  window.restart(0);
  return window;
}

test("a window grows to its limit", () => {
  const growth = new Growth();
  const window = begun(growth);
  run(window);
  assert.equal(window.size, MAX_WINDOW);
  assert.equal(growth.taken, MAX_WINDOW - INITIAL_WINDOW);
});

test("windows share what they may grow by, and give it back", () => {
  const growth = new Growth(MAX_WINDOW);
  const windows = [begun(growth), begun(growth), begun(growth)];
  for (const window of windows) run(window);
  assert.deepEqual(
    windows.map((window) => window.size),
    [MAX_WINDOW, 2 * INITIAL_WINDOW, INITIAL_WINDOW],
  );
  assert.equal(growth.available, 0);
  windows[0].shrink();
  run(windows[2], 20, 1000);
  assert.equal(windows[2].size, MAX_WINDOW);
  for (const window of windows) {
    window.shrink();
    window.shrink();
    assert.equal(window.size, INITIAL_WINDOW);
  }
  assert.deepEqual([growth.available, growth.taken], [MAX_WINDOW, 0]);
});

test("credit that was given stays given when a window shrinks", () => {
  const window = begun(new Growth());
  run(window);
  const { granted } = window;
  window.shrink();
  window.take(window.received, granted - window.received);
  window.consume(granted);
  assert.deepEqual(window.renewal(false, 5000, 100), { ack: granted, up_to: granted + INITIAL_WINDOW });
});
