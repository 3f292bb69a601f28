"""Echoes: how long a small message takes there and back, and how many go through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from bench import latency, loadgen
from bench.flows.bulk import route_of
from bench.latency import Trips
from bench.measure import Case, Flow, Lab, Sample, Spent
from bench.rivals.base import WEBSOCKET

SPIN = "trunkline-spin"


@contextmanager
def echoing(lab: Lab) -> Iterator[None]:
    """Let what is behind the relays send everything back."""
    lab.back.start(loadgen.echo)
    try:
        yield
    finally:
        lab.back.stop()
        lab.back.result(5)


def _trips(lab: Lab, case: Case, connections: int) -> tuple[Trips, float]:
    with echoing(lab), Spent(case) as spent:
        trips: Trips = lab.client.call(latency.echoes, route_of(case), connections, case.seconds)
    return trips, spent.seconds


def first(lab: Lab, case: Case, connections: int, what: str) -> Sample:
    """Measure, and keep the rest of it for `second`."""
    trips, cpu = _trips(lab, case, connections)
    cost = cpu / max(1.0, trips.rate * case.seconds)
    lab.memo[case.subject.name, f"trips-{connections}"] = (trips, cost)
    return Sample(getattr(trips, what), cost)


def second(lab: Lab, case: Case, connections: int, what: str) -> Sample:
    """Tell another figure of the trips that were measured last."""
    found = lab.memo.get((case.subject.name, f"trips-{connections}"))
    if found is None:
        return first(lab, case, connections, what)
    trips, cost = found
    return Sample(getattr(trips, what), cost)


def setups(lab: Lab, case: Case) -> Sample:
    """Measure handshake, one echo and close: how often per second, one after the other."""
    with echoing(lab), Spent(case) as spent:
        value: float = lab.client.call(latency.setups, route_of(case), case.seconds)
    return Sample(value, spent.seconds / (value * case.seconds))


def _flow(
    name: str, title: str, measure: Callable[..., Sample], connections: int, what: str
) -> Flow:
    more = what == "rate"
    unit = "/s" if more else "µs"
    call = partial(measure, connections=connections, what=what)
    return Flow(name, title, unit, call, WEBSOCKET, also=(SPIN,), more=more)


FLOWS = (
    _flow("echo-p50-1", "echo p50, 1 connection", first, 1, "p50"),
    _flow("echo-p99-1", "echo p99, 1 connection", second, 1, "p99"),
    _flow("echo-rate-50", "echoes, 50 connections", first, 50, "rate"),
    _flow("echo-p50-50", "echo p50, 50 connections", second, 50, "p50"),
    _flow("echo-p99-50", "echo p99, 50 connections", second, 50, "p99"),
    Flow("setups", "connect, one echo, close; one at a time", "/s", setups, WEBSOCKET),
)
