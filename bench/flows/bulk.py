"""TCP to WebSocket and back: how much goes through.

*Down* is what a browser downloads: a program behind the relay writes `size` bytes at a time, and the relay
makes frames of what it reads.  *Up* is what a browser sends: masked frames of `size` bytes, back to back.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from bench import loadgen
from bench.measure import Case, Flow, Lab, Sample, Spent
from bench.rivals.base import WEBSOCKET
from bench.wire import Route

SIZES = {"16B": 16, "1K": 1024, "64K": 65536}
SMALLEST = 64 * 1024
LARGEST = 1536 * 1024 * 1024
OURS = ("none", "socket-stream", "trunkline")
"""Rivals are left out where it would only cost time: many connections with small frames."""
GROWTH = 24
"""A first guess is improved at most by so much at a time."""


def route_of(case: Case) -> Route:
    """Return where clients of the subject connect to."""
    assert case.running is not None
    assert case.running.route is not None
    return case.running.route()


def down(lab: Lab, case: Case, size: int, connections: int) -> Sample:
    """Measure what comes from behind the relay, in MB/s over all connections."""
    return _move(lab, case, size, connections, upwards=False)


def up(lab: Lab, case: Case, size: int, connections: int) -> Sample:
    """Measure what a client sends, in MB/s over all connections."""
    return _move(lab, case, size, connections, upwards=True)


def _move(lab: Lab, case: Case, size: int, connections: int, *, upwards: bool) -> Sample:
    assert case.running is not None
    behind = case.running.keeps_websocket

    def move(amount: int) -> tuple[int, loadgen.Moved]:
        each = amount // connections // size * size or size
        load = loadgen.Load(connections, size, each)
        if upwards:
            moved, _ = lab.pair(loadgen.sink, loadgen.send, behind, route_of(case), load)
        else:
            _, moved = lab.pair(loadgen.source, loadgen.receive, behind, route_of(case), load)
        return each * connections, moved

    return paced(case, move)


def paced(
    case: Case, move: Callable[[int], tuple[int, loadgen.Moved]], least: int = SMALLEST
) -> Sample:
    """Move so much that it takes about `case.seconds` (but `least` bytes); return the MB/s.

    `move` is given an amount and returns how much was to be moved, and what became of it.
    """
    while True:
        with Spent(case) as spent:
            total, moved = move(max(case.amount, least, SMALLEST))
        arrived = max(1, total - moved.damage.lost)
        rate = arrived / moved.seconds
        before = max(case.amount, least, SMALLEST)
        case.amount = max(SMALLEST, min(LARGEST, int(rate * case.seconds), GROWTH * before))
        enough = moved.seconds >= case.seconds / 3 or case.amount <= before
        if enough or before >= LARGEST // 2:
            return Sample(rate / 1e6, spent.seconds / (arrived / 1e6), moved.damage)


def _flows() -> tuple[Flow, ...]:
    found = []
    for connections in (1, 20):
        for name, size in SIZES.items():
            plural = "1 connection" if connections == 1 else f"{connections} connections"
            for direction, title, measure in (
                ("down", f"TCP→WebSocket, writes of {name}, {plural}", down),
                ("up", f"WebSocket→TCP, frames of {name}, {plural}", up),
            ):
                found.append(
                    Flow(
                        f"{direction}-{name}-{connections}",
                        title,
                        "MB/s",
                        partial(measure, size=size, connections=connections),
                        role=WEBSOCKET if connections == 1 or size == max(SIZES.values()) else None,
                        only=() if connections == 1 or size == max(SIZES.values()) else OURS,
                    )
                )
    return tuple(found)


FLOWS = _flows()
