"""The data path does not get slower than it is: ratios within one run, with wide margins.

Never absolute times.  A machine that is busy right now gets three tries; each takes a few seconds.
"""

from __future__ import annotations

import pytest

from bench.command import choose_flows
from bench.measure import Run, run

TRIES = 3
LIMITS = {"down-64K-1": 1.0, "up-64K-1": 0.8, "echo-p50-1": 1.5}
"""Against the SocketStream relay: MB/s at least, times at most."""


def complaints(found: Run) -> list[str]:
    said = []
    for case in found.cases:
        if case.subject.name != "trunkline":
            continue
        assert case.problem is None, case.problem
        assert case.damage.clean, f"{case.flow.name}: {case.damage}"
        limit = LIMITS[case.flow.name]
        ratio = found.ratio(case, case.flow.reference)
        assert ratio is not None
        if (ratio < limit) if case.flow.more else (ratio > limit):
            said.append(f"{case.flow.name}: {ratio:.2f} of the SocketStream relay, not {limit}")
    return said


@pytest.mark.slow
def test_the_data_path_keeps_its_pace() -> None:
    flows = choose_flows(tuple(LIMITS), quick=False)
    said: list[str] = []
    for _ in range(TRIES):
        found = run(flows, ["socket-stream", "trunkline"], rounds=5, seconds=0.1, budget=20)
        said = complaints(found)
        if not said:
            return
    pytest.fail("; ".join(said))
