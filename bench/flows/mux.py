"""Many TCP connections over one trunk (`trunkline forward`), against two relays in a row."""

from __future__ import annotations

from functools import partial

from bench import loadgen, transfers
from bench.flows.bulk import down, route_of, up
from bench.latency import Trips
from bench.measure import CHAIN, PATIENCE, Case, Flow, Lab, Sample, Spent
from bench.ratios import jain
from bench.rivals.base import TCP
from bench.workers import WorkerFailed

STALLED_OF = 10
FAIR_BYTES = 512 * 1024
"""For each of 100 streams: more than windows and buffers hold, so that turns are taken."""
STALL_BYTES = 32 * 1024 * 1024
"""More than every buffer on the way holds, so that who does not read does stall."""


def fairness(lab: Lab, case: Case) -> Sample:
    """Measure how evenly 100 streams are served: what each has got when the first is done."""
    load = loadgen.Load(100, 65536, FAIR_BYTES)
    _, moved = lab.pair(loadgen.source, loadgen.receive, False, route_of(case), load)
    return Sample(jain(moved.shares))


def beside_stalled(lab: Lab, case: Case) -> Sample:
    """Measure nine connections beside one that never reads, against nine alone."""
    assert case.running is not None
    reading = STALLED_OF - 1
    paces = []
    each = max(65536, int(case.amount or 20_000_000) // reading // 65536 * 65536)
    for stalled in (0, 1):
        amount = max(each, STALL_BYTES) if stalled else each
        load = loadgen.Load(reading + stalled, 65536, amount, stalled)
        seen = loadgen.Load(reading + stalled, 65536, each, stalled)
        lab.back.call(loadgen.forget)
        lab.back.start(loadgen.source, False, load)
        try:
            moved: loadgen.Moved = lab.client.call(
                loadgen.receive, route_of(case), seen, seconds=PATIENCE
            )
        finally:
            lab.back.stop()
            lab.back.settle(PATIENCE)
        paces.append(reading * each / moved.seconds)
    case.amount = int(paces[0] * case.seconds)
    return Sample(paces[1] / paces[0])


def echo_beside_flood(lab: Lab, case: Case) -> Sample:
    """Measure echoes while another stream is flooded: p50 in microseconds."""
    lab.back.call(loadgen.forget)
    lab.back.start(transfers.echo_beside_flood)
    try:
        with Spent(case):
            trips: Trips = lab.client.call(
                transfers.echoes_beside_flood, route_of(case), case.seconds, seconds=PATIENCE
            )
    except WorkerFailed:
        lab.back.stop()
        raise
    lab.back.stop()
    lab.back.result(PATIENCE)
    return Sample(trips.p50)


def _flow(name: str, title: str, connections: int) -> Flow:
    call = partial(down, size=65536, connections=connections)
    return Flow(name, title, "MB/s", call, TCP, reference=CHAIN)


FLOWS = (
    _flow("mux-1", "over one trunk, 1 stream down", 1),
    _flow("mux-10", "over one trunk, 10 streams down", 10),
    _flow("mux-100", "over one trunk, 100 streams down", 100),
    Flow(
        "mux-jain-100",
        "fairness of the 100 (Jain)",
        "",
        fairness,
        TCP,
        reference=CHAIN,
        direct=False,
    ),
    Flow(
        "mux-up-1",
        "over one trunk, 1 stream up",
        "MB/s",
        partial(up, size=65536, connections=1),
        TCP,
        reference=CHAIN,
    ),
    Flow(
        "mux-stalled",
        "9 beside one that never reads, of 9 alone",
        "x",
        beside_stalled,
        TCP,
        reference=CHAIN,
        direct=False,
    ),
    Flow(
        "echo-under-flood",
        "echo p50 beside a flooded stream",
        "µs",
        echo_beside_flood,
        TCP,
        more=False,
        reference=CHAIN,
    ),
)
