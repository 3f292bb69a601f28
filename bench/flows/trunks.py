"""trunk/1 itself: against the plain WebSocket of the same server, and what only it can do."""

from __future__ import annotations

from bench import loadgen, trunk
from bench.flows.bulk import down, paced, up
from bench.flows.contents import server_of, where
from bench.flows.round_trips import echoing
from bench.loadgen import Load, Moved
from bench.machine import memory_bytes
from bench.measure import PATIENCE, Case, Flow, Lab, Sample

PLAIN, TRUNK = "trunkline", "trunkline-trunk1"
DELAY = 0.010
"""Seconds each way on the line that is cut."""

SESSIONS = 10
SIZE = 65536


def receive(lab: Lab, case: Case) -> Sample:
    """Measure a port through the SDK, or as a plain WebSocket."""
    if case.subject.name != TRUNK:
        return down(lab, case, SIZE, 1)

    def move(amount: int) -> tuple[int, Moved]:
        size = max(1, amount // SIZE) * SIZE
        lab.back.call(loadgen.forget)
        lab.back.start(loadgen.source, False, Load(1, SIZE, size))
        moved: Moved = lab.client.call(trunk.receive, where(case), lab.ports.tcp, size)
        lab.back.result(PATIENCE)
        return size, moved

    return paced(case, move)


def send(lab: Lab, case: Case) -> Sample:
    """The other direction."""
    if case.subject.name != TRUNK:
        return up(lab, case, SIZE, 1)

    def move(amount: int) -> tuple[int, Moved]:
        size = max(1, amount // SIZE) * SIZE
        lab.back.call(loadgen.forget)
        lab.back.start(loadgen.sink, False, Load(1, SIZE, size))
        lab.client.call(trunk.send, where(case), lab.ports.tcp, size)
        moved: Moved = lab.back.result(PATIENCE)
        return size, moved

    return paced(case, move)


def attaches(lab: Lab, case: Case) -> Sample:
    """Measure ticket, link, attach, one echo and close: how often per second, one at a time."""
    with echoing(lab):
        return Sample(
            lab.client.call(trunk.attaches, where(case), lab.ports.tcp, max(0.3, case.seconds))
        )


def resume(lab: Lab, case: Case) -> Sample:
    """Measure the milliseconds from a cut (RST) to the next echo, on a line of 20 ms there and back."""
    line = server_of(case)[0].line_port
    with echoing(lab):
        seconds = lab.client.call(trunk.resume, where(case), line, lab.ports.tcp, DELAY)
    return Sample(seconds * 1000)


def made(lab: Lab, case: Case) -> Sample:
    """Measure the milliseconds to make a session."""
    times = lab.client.call(trunk.start_up, where(case))
    lab.memo[case.subject.name, "start-up"] = times
    return Sample(times[0] * 1000)


def first_byte(lab: Lab, case: Case) -> Sample:
    """Tell the milliseconds from asking for a session to the first byte of a command in it."""
    times = lab.memo.get((case.subject.name, "start-up"))
    if times is None:
        times = lab.client.call(trunk.start_up, where(case))
    return Sample(times[1] * 1000)


def sandbox_memory(_: Lab, case: Case) -> Sample:
    """Measure the KiB of the server and its children per session in which nothing runs."""
    server, _session = server_of(case)
    assert case.running is not None
    before = memory_bytes(case.running.pids)
    made = [server.api.create_session() for _ in range(SESSIONS)]
    after = memory_bytes(case.running.pids)
    for session in made:
        server.api.call("DELETE", f"/v1/sessions/{session}")
    return Sample((after - before) / SESSIONS / 1024)


_BOTH = (PLAIN, TRUNK)
_ONE = (PLAIN,)
_SANDBOXES = (PLAIN, "trunkline-bubblewrap")

FLOWS = (
    Flow(
        "trunk1-down", "trunk/1 (SDK) to plain, down", "MB/s", receive, only=_BOTH, reference=PLAIN
    ),
    Flow("trunk1-up", "trunk/1 (SDK) to plain, up", "MB/s", send, only=_BOTH, reference=PLAIN),
    Flow(
        "attaches", "ticket, link, attach, echo, close", "/s", attaches, only=_ONE, reference=None
    ),
    Flow(
        "resume",
        "from a cut to the next echo, RTT 20 ms",
        "ms",
        resume,
        only=_ONE,
        reference=None,
        more=False,
    ),
    Flow("session", "making a session", "ms", made, only=_SANDBOXES, reference=None, more=False),
    Flow(
        "first-byte",
        "session, and first byte of a command",
        "ms",
        first_byte,
        only=_SANDBOXES,
        reference=None,
        more=False,
    ),
    Flow(
        "sandbox-memory",
        f"memory per session, {SESSIONS} of them, nothing running",
        "KiB",
        sandbox_memory,
        only=_SANDBOXES,
        reference=None,
        more=False,
        once=True,
    ),
)
