"""Ctrl-C gets through while the output is blocked."""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from relay.carrier import Carrier
from relay.client import open_trunk
from relay.client_attachment import AttachOptions, ClientAttachment
from relay.endpoint import ExitStatus, Kind
from relay.grant import Grant
from relay.limits import StreamLimits
from relay.memory import carrier_pair
from relay.protocol.messages import Start
from runtimes.agent import Agent
from runtimes.base import SandboxSpec
from runtimes.local import LocalRuntime
from tests.testing.endpoints import FloodSource, Sink, pty_endpoint
from tests.testing.faulty import Fault, faulty_pair
from tests.testing.relay_world import SMALL, open_world


async def test_input_takes_one_way_through_the_network(autojump_clock: object) -> None:
    """However much output is under way, and however slowly it is read."""
    sink = Sink()
    async with open_world(lambda _: pty_endpoint(FloodSource(), sink), SMALL) as world:

        async def dial() -> Carrier:
            fault = Fault(latency=0.02)
            ours, theirs = faulty_pair(fault, fault)
            world.serve(theirs)
            return ours

        async with open_trunk(dial) as trunk:
            attachment = await trunk.attach(
                AttachOptions("attachment-aaaaaa", Kind.PTY, "t", start=Start())
            )
            await trio.sleep(10)  # nobody reads: ring and window are full
            for number in range(1, 20):
                began = trio.current_time()
                await attachment.send(b"\x03")
                await sink.wait_for(number)
                assert trio.current_time() - began == pytest.approx(0.02)
                await attachment.receive()


@asynccontextmanager
async def flooded_terminal(number: int) -> AsyncIterator[ClientAttachment]:
    """Open a real terminal in which ``yes`` writes, and nobody reads."""
    agent = Agent(LocalRuntime(grace=0.5), software="test", limits=StreamLimits())
    async with agent.open_session(SandboxSpec("s")), trio.open_nursery() as nursery:

        async def dial() -> Carrier:
            ours, theirs = carrier_pair()
            nursery.start_soon(agent.serve_link, theirs, Grant("s", "me", frozenset({Kind.PTY})))
            return ours

        async with open_trunk(dial) as trunk:
            yield await trunk.attach(
                AttachOptions(
                    f"attachment-{number:06}", Kind.PTY, "t", start=Start(command=["yes"])
                )
            )
        nursery.cancel_scope.cancel()


async def time_to_interrupt(number: int) -> float:
    """Return the seconds from the keystroke to the death of ``yes``, its output blocked."""
    with trio.fail_after(30):
        async with flooded_terminal(number) as attachment:
            await blocked(attachment)
            ended = trio.Event()

            async def wait() -> None:
                while await attachment.receive() is not None:
                    pass
                assert await attachment.wait() == ExitStatus(signal="INT")
                ended.set()

            began = trio.current_time()
            await attachment.send(b"\x03")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await ended.wait()
                return trio.current_time() - began


async def blocked(attachment: ClientAttachment) -> None:
    """Wait until the window is full: then the ring fills, and then the terminal."""
    window = attachment.statistics().windows[1]  # type: ignore[index]  # a Channel is an int
    while True:
        now = attachment.statistics().windows[1]  # type: ignore[index]
        if now.received == now.granted:
            break
        await trio.sleep(0.01)
    assert window.consumed == 0
    await trio.sleep(0.1)


async def test_a_real_terminal_flooded_by_yes() -> None:
    """Median under 50 ms is the promise; the bound here allows for a busy machine."""
    times = [await time_to_interrupt(number) for number in range(7)]
    assert statistics.median(times) < 0.5, times
