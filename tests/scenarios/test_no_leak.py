"""After a thousand visits everything is back where it was."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from relay.carrier import Carrier
from relay.client import Trunk, open_trunk
from relay.client_attachment import AttachOptions, ClientAttachment
from relay.endpoint import Endpoint, Kind, StartRequest
from relay.grant import Grant
from relay.memory import carrier_pair
from relay.protocol.messages import Start
from runtimes.agent import Agent
from runtimes.base import SandboxSpec
from runtimes.local import LocalRuntime
from tests.testing.endpoints import FloodSource, ManualSource, Source, pty_endpoint
from tests.testing.relay_world import SMALL, RelayWorld, open_world

CYCLES = 1000


class Chatty(Source):
    """Writes a little every tenth of a second."""

    async def read(self, max_bytes: int) -> bytes:
        await trio.sleep(0.1)
        return b"tick\n"


def options(number: int, tag: str = "t") -> AttachOptions:
    return AttachOptions(f"attachment-{number:06}", Kind.PTY, tag, start=Start(), takeover=True)


async def visit(trunk: Trunk, number: int) -> None:
    attachment = await trunk.attach(options(number))
    try:
        await attachment.receive()
    finally:
        trunk.detach(attachment)


def count(type_: type) -> int:
    gc.collect()
    return sum(type(thing) is type_ for thing in gc.get_objects())


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


@pytest.mark.parametrize("source", [ManualSource, FloodSource])
async def test_a_thousand_links_that_break_off(
    source: Callable[[], Source], autojump_clock: object
) -> None:
    """Each attaches and is cut off without a word."""
    async with open_world(lambda _: pty_endpoint(source()), SMALL) as world:
        before: tuple[object, ...] | None = None
        for number in range(CYCLES):
            async with world.raw() as peer:
                await peer.attach(
                    kind=Kind.PTY,
                    start=Start(),
                    attachment=f"attachment-{number:06}",
                )
            if number == 0:
                before = snapshot(world)
        assert snapshot(world) == before
        assert len(world.stream().attachments) == 1  # control passes on, and so do records


def snapshot(world: RelayWorld) -> tuple[object, ...]:
    (stream,) = world.host.statistics()
    return (
        tasks(),
        len(world.servers),
        [ring.allocated for ring in stream.rings.values()],
        stream.input_waiting,
        [a.bound for a in stream.attachments],
    )


async def test_a_thousand_attachments_given_up_on_one_link(autojump_clock: object) -> None:
    """Attached, cancelled at any time, detached: the link holds nothing of them."""

    async def start(request: StartRequest) -> Endpoint:
        await trio.sleep(0.1 if request.command == ("slow",) else 0)
        return pty_endpoint(Chatty())

    async with open_world(start, SMALL) as world, world.trunk() as trunk:
        await trunk.attach(options(999_999, "other"))
        first: int | None = None
        for number in range(CYCLES):
            with trio.move_on_after(number % 3 * 0.08):
                await visit(trunk, number)
            await world.settle()
            if number == 10:
                first = tasks()
        assert tasks() == first
        assert trunk._link is not None
        (server,) = world.servers
        for connection in (trunk._link.connection, server.link.connection):
            assert connection.statistics().streams == 1
            assert not connection.has_output
        assert len(trunk._attachments) == len(trunk._by_stream) == 1
        assert len(server._attached) <= 2
        assert {s.tag: len(s.attachments) for s in world.host.statistics()} == {"other": 1, "t": 0}
        assert count(ClientAttachment) <= 2


async def test_a_thousand_trunks(autojump_clock: object) -> None:
    async with open_world(lambda _: pty_endpoint(Chatty()), SMALL) as world:
        before: int | None = None
        for number in range(CYCLES):
            async with world.trunk() as trunk:
                await trunk.attach(options(number))
            await world.settle()
            assert world.servers == []
            assert world.stream().attachments == ()
            before = tasks() if before is None else before
            assert tasks() == before


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


async def test_real_terminals_leave_no_descriptor_and_no_process() -> None:
    """Fewer than a thousand, because each is a process: attach, abort, end."""
    with trio.fail_after(120):
        agent = Agent(LocalRuntime(grace=0.2, linger=0.1), software="test")

        async def visit(cycles: int) -> None:
            async with agent.open_session(SandboxSpec("s")), trio.open_nursery() as nursery:

                async def dial() -> Carrier:
                    ours, theirs = carrier_pair()
                    nursery.start_soon(
                        agent.serve_link, theirs, Grant("s", "me", frozenset({Kind.PTY}))
                    )
                    return ours

                for number in range(cycles):
                    async with open_trunk(dial) as trunk:
                        attachment = await trunk.attach(
                            AttachOptions(
                                f"attachment-{number:06}",
                                Kind.PTY,
                                f"t{number}",
                                start=Start(command=["cat"]),
                            )
                        )
                        if number % 2:
                            await attachment.send(b"hello\n")
                            await attachment.receive()
                nursery.cancel_scope.cancel()

        await visit(2)
        before = (descriptors(), children(), tasks())
        await visit(30)
        await visit(30)
        assert (descriptors(), children(), tasks()) == before
        assert agent.statistics().sessions == agent.statistics().links == 0
