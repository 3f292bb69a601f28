"""Nobody waits for a stranger: what a viewer that never reads costs the others.

A terminal is flooded.  Measured, in interleaved rounds with and without a viewer that is attached but
never takes a byte:

* the pace of a second viewer (MB/s);
* Ctrl-C: from `send` until the shell's trap has run, by the machine's clock (the trap writes
  bash's EPOCHREALTIME), while the controller's own output is blocked as well: it does not read either.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import trio

from bench.server import open_server
from trunkline import Mode, Output, Session

LINE = "y" * 79
FLOOD = f"""trap 'echo $EPOCHREALTIME > "$0.part"; mv "$0.part" "$0"; exit' INT
while :; do echo {LINE}; done"""
YES = f"exec yes {LINE}"
PACE_SECONDS = 1.0


@dataclass(slots=True)
class Result:
    """Medians are over rounds; times in milliseconds, paces in MB/s."""

    pace_alone: list[float] = field(default_factory=list)
    pace_beside: list[float] = field(default_factory=list)
    ctrl_c: list[float] = field(default_factory=list)

    @property
    def pace_ratio(self) -> float:
        """The second viewer's pace beside a stalled one, against without."""
        return statistics.median(
            beside / alone for beside, alone in zip(self.pace_beside, self.pace_alone, strict=True)
        )

    @property
    def ctrl_c_median(self) -> float:
        """Milliseconds from typing Ctrl-C to the trap, median."""
        return statistics.median(self.ctrl_c)


async def pace(session: Session, *, stalled: bool, number: int) -> float:
    """Return the MB/s of one viewer of a flooded terminal, beside a stalled one or not."""
    tag = f"pace-{number}-{'beside' if stalled else 'alone'}"
    async with (
        session.connect() as control,
        session.connect(mode=Mode.VIEW) as watching,
        session.connect(mode=Mode.VIEW) as idle,
    ):
        terminal = await control.terminal(tag, command=["bash", "-c", YES])
        if stalled:
            await idle.terminal(tag)
        viewer = await watching.terminal(tag)
        async with trio.open_nursery() as nursery:

            async def drain() -> None:
                while await terminal.receive() is not None:
                    pass

            nursery.start_soon(drain)
            size = 0
            began = trio.current_time()
            with trio.move_on_after(PACE_SECONDS):
                while (item := await viewer.receive()) is not None:
                    size += len(item.data) if isinstance(item, Output) else 0
            seconds = trio.current_time() - began
            nursery.cancel_scope.cancel()
        terminal.send_signal("KILL")
        await terminal.wait()
    return size / seconds / 1e6


async def ctrl_c(session: Session, directory: Path, number: int) -> float:
    """Return the milliseconds from typing Ctrl-C to the trap, while nobody reads the output."""
    tag = f"ctrl-c-{number}"
    stamp = directory / tag
    async with session.connect() as control, session.connect(mode=Mode.VIEW) as idle:
        terminal = await control.terminal(tag, command=["bash", "-c", FLOOD, str(stamp)])
        await idle.terminal(tag)
        await terminal.receive()
        await trio.sleep(0.3)  # until every buffer on the way is full
        typed = time.time()
        await terminal.send(b"\x03")
        with trio.fail_after(30):
            while not stamp.exists():  # noqa: ASYNC110 - another process makes it
                await trio.sleep(0.005)
    return (float(stamp.read_text()) - typed) * 1000


async def measure(rounds: int = 7) -> Result:
    """Run interleaved rounds against a real server."""
    result = Result()
    async with open_server() as client:
        session = await client.create_session()
        with tempfile.TemporaryDirectory() as directory:
            for number in range(rounds):
                result.pace_alone.append(await pace(session, stalled=False, number=number))
                result.pace_beside.append(await pace(session, stalled=True, number=number))
                result.ctrl_c.append(await ctrl_c(session, Path(directory), number))
        await session.delete()
    return result
