"""What connections cost that do nothing, and those whose reader has stalled."""

from __future__ import annotations

import time
from functools import partial

from bench import loadgen
from bench.flows.bulk import route_of
from bench.flows.round_trips import echoing
from bench.machine import memory_bytes
from bench.measure import Case, Flow, Lab, Sample
from bench.rivals.base import WEBSOCKET
from bench.wire import Route

IDLE = 500
EACH = 100
"""Connections of one session: it has at most 256 streams."""
FEW = {"websockify": 50}
"""A process for each connection: 500 of them would be cruel."""
FLOOD_BYTES = 200_000_000
WATCH_SECONDS = 2.0


def idle(lab: Lab, case: Case) -> Sample:
    """Measure the KiB of the relay per idle WebSocket."""
    assert case.running is not None
    count = FEW.get(case.subject.name, IDLE)
    more = case.running.extra.get("routes")
    with echoing(lab):
        # Once before, so that what the first connections load does not count.
        lab.client.call(loadgen.hold, [route_of(case)], 20)
        lab.client.call(loadgen.release)
        time.sleep(0.3)
        before = memory_bytes(case.running.pids)
        routes: list[Route] = more(count // EACH) if callable(more) else [route_of(case)]
        lab.client.call(loadgen.hold, routes, count // len(routes))
        time.sleep(0.3)
        after = memory_bytes(case.running.pids)
        lab.client.call(loadgen.release)
    return Sample((after - before) / count / 1024)


def stalled(lab: Lab, case: Case) -> Sample:
    """Measure the MB by which the relay grows while 200 MB wait for a reader that does not read."""
    assert case.running is not None
    before = memory_bytes(case.running.pids)
    lab.back.start(loadgen.flood, case.running.keeps_websocket, FLOOD_BYTES)
    lab.client.call(loadgen.hold, [route_of(case)], 1)
    most = before
    stop = time.monotonic() + WATCH_SECONDS
    while time.monotonic() < stop:
        most = max(most, memory_bytes(case.running.pids))
        time.sleep(0.1)
    lab.client.call(loadgen.release)
    lab.back.stop()
    lab.back.settle(5)
    return Sample(max(0.0, (most - before) / 1e6))


def _flow(name: str, title: str, unit: str, measure: partial[Sample]) -> Flow:
    return Flow(name, title, unit, measure, WEBSOCKET, more=False, direct=False, once=True)


FLOWS = (
    _flow("idle-memory", f"memory per idle WebSocket, {IDLE} of them", "KiB", partial(idle)),
    _flow("stalled-memory", "growth beside a reader that stalls", "MB", partial(stalled)),
)
