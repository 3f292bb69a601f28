"""A connection over the relay behaves as a Trio stream, cuts included."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
import trio.testing

from relay.attachment_stream import AttachmentStream
from relay.client import Trunk
from relay.client_attachment import AttachOptions
from relay.endpoint import Endpoint, Kind, StartRequest
from relay.errors import AttachmentClosed
from relay.protocol.messages import Start
from relay.protocol.reasons import CloseReason
from relay.stream import StreamState
from tests.testing.relay_world import SMALL, RelayWorld, open_world
from tests.testing.stream_endpoint import StreamEndpoint

Stapled = trio.StapledStream[Any, Any]
Pair = tuple[Any, Any]


@dataclass
class Ports:
    """A session whose every port leads to the test."""

    world: RelayWorld
    trunk: Trunk
    ends: list[Stapled] = field(default_factory=list)
    endpoints: list[StreamEndpoint] = field(default_factory=list)

    async def open(self, close_seconds: float = 5.0) -> tuple[AttachmentStream, Stapled]:
        """Open a connection; return its stream, and that of the other end."""
        number = len(self.ends)
        attachment = await self.trunk.attach(
            AttachOptions(f"attachment-{number:08}", Kind.TCP, f"t{number}", start=Start(port=8080))
        )
        stream = AttachmentStream(attachment, self.trunk.detach, close_seconds=close_seconds)
        return stream, self.ends[-1]


@asynccontextmanager
async def open_ports(
    make_pair: Callable[[], tuple[Stapled, Stapled]] = trio.testing.memory_stream_pair,
) -> AsyncIterator[Ports]:
    def start(request: StartRequest) -> Endpoint:
        ours, theirs = make_pair()
        ports.ends.append(theirs)
        ports.endpoints.append(StreamEndpoint(ours))
        return ports.endpoints[-1]

    async with open_world(start, SMALL) as world, world.trunk() as trunk:
        ports = Ports(world, trunk)
        yield ports


async def test_it_is_a_half_closeable_stream(autojump_clock: trio.testing.MockClock) -> None:
    async with open_ports() as ports:
        await trio.testing.check_half_closeable_stream(ports.open, None)


async def test_a_clogged_one_is_too(autojump_clock: trio.testing.MockClock) -> None:
    async with open_ports(trio.testing.lockstep_stream_pair) as ports:

        async def clogged() -> Pair:
            stream, other = await ports.open(close_seconds=0.1)
            with trio.move_on_after(1):
                while True:
                    await stream.send_all(bytes(65536))
            # Nobody reads `stream`, so a full ring and one piece are all that is taken.
            for _ in range(SMALL.ring_bytes // SMALL.read_bytes + 1):
                await other.send_all(bytes(SMALL.read_bytes))
            return stream, other

        await trio.testing.check_half_closeable_stream(ports.open, clogged)


async def test_what_was_sent_arrives_before_the_end(autojump_clock: trio.testing.MockClock) -> None:
    data = bytes(range(256)) * 4096
    async with open_ports(trio.testing.lockstep_stream_pair) as ports:
        stream, other = await ports.open()
        got = bytearray()

        async def read_slowly() -> None:
            while piece := await other.receive_some(100_000):
                await trio.sleep(0.1)
                got.extend(piece)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_slowly)
            await stream.send_all(data)
            await stream.aclose()
        assert got == data
        assert ports.endpoints[0].signals == ["HUP"]


async def test_closing_gives_up_on_one_who_does_not_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_ports(trio.testing.lockstep_stream_pair) as ports:
        stream, other = await ports.open(close_seconds=3)
        await stream.send_all(bytes(100_000))
        began = trio.current_time()
        await stream.aclose()
        assert trio.current_time() - began == pytest.approx(3)
        await ports.world.settle()
        assert ports.endpoints[0].signals[0] == "KILL"
        with pytest.raises(trio.BrokenResourceError):
            await other.send_all(b"x")


async def test_closing_does_not_wait_behind_a_flood(autojump_clock: trio.testing.MockClock) -> None:
    """The other side takes no input before somebody takes its output: the output is discarded."""
    async with open_ports(trio.testing.lockstep_stream_pair) as ports:
        stream, other = await ports.open()

        async def serve() -> None:
            await other.send_all(bytes(5_000_000))
            assert await other.receive_some(10) == b"last words"
            assert await other.receive_some(10) == b""

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await ports.world.settle()
            await stream.send_all(b"last words")
            await stream.aclose()


async def test_a_connection_that_breaks_is_no_end(autojump_clock: trio.testing.MockClock) -> None:
    async with open_ports() as ports:
        stream, other = await ports.open()
        await other.send_all(b"half of the ans")
        await ports.world.settle()
        ports.endpoints[0].break_now()
        assert await stream.receive_some() == b"half of the ans"
        with pytest.raises(trio.BrokenResourceError, match="broke"):
            await stream.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")


async def test_the_end_of_the_output_comes_before_that_of_the_input(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_ports() as ports:
        stream, other = await ports.open()
        await other.send_eof()
        assert await stream.receive_some() == b""
        assert await stream.receive_some() == b""
        await stream.send_all(b"still taken")
        assert await other.receive_some() == b"still taken"
        await stream.send_eof()
        assert await other.receive_some() == b""
        assert (await stream.attachment.wait()).code == 0


async def test_resetting_tells_the_other_end(autojump_clock: trio.testing.MockClock) -> None:
    async with open_ports() as ports:
        stream, _ = await ports.open()
        await stream.reset()
        await stream.reset()
        assert ports.endpoints[0].signals[0] == "KILL"
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()


async def test_nothing_is_left_on_either_side(autojump_clock: trio.testing.MockClock) -> None:
    async with open_ports() as ports:
        for _ in range(3):
            stream, other = await ports.open()
            await stream.aclose()
            await other.aclose()
        await ports.world.settle()
        assert ports.world.host.statistics() == ()
        assert ports.trunk.statistics().attachments == 0


async def test_a_connection_whose_client_detached_is_closed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_ports() as ports:
        stream, _ = await ports.open()
        ports.trunk.detach(stream.attachment)
        await ports.world.settle()
        assert ports.endpoints[0].signals == ["HUP"]
        assert ports.world.host.statistics() == ()


async def test_a_connection_waits_long_for_a_lost_client_and_then_is_closed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_ports() as ports:
        async with ports.world.raw() as peer:
            await peer.attach("lost", Kind.TCP, start=Start(port=1))
        await trio.sleep(SMALL.connection_linger - 1)
        assert ports.world.stream("lost").state is StreamState.RUNNING
        await trio.sleep(2)
        assert ports.endpoints[0].signals == ["HUP"]
        await ports.world.settle()
        assert ports.world.host.statistics() == ()


async def test_the_end_of_the_session_breaks_it(autojump_clock: trio.testing.MockClock) -> None:
    async with open_ports() as ports:
        stream, _ = await ports.open()
        ports.world.host.end(CloseReason.EXPIRED)
        with pytest.raises(trio.BrokenResourceError) as caught:
            await stream.receive_some()
        assert isinstance(caught.value.__cause__, AttachmentClosed)
        assert caught.value.__cause__.reason is CloseReason.EXPIRED
        await stream.aclose()
