"""Cancel at every checkpoint: nothing is left over, and nobody else loses a byte."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from relay.carrier import Carrier
from relay.client import Trunk, open_trunk
from relay.client_attachment import INPUT_BUFFER, AttachOptions, ClientAttachment
from relay.endpoint import Endpoint, ExitStatus, Kind, StartRequest
from relay.inbox import Output
from relay.memory import carrier_pair
from relay.protocol.messages import Start
from relay.server import ServerLink
from tests.testing.checkpoints import cancel_at
from tests.testing.endpoints import EchoSource, ManualSource, Sink, exec_endpoint, pty_endpoint
from tests.testing.relay_world import RelayWorld, open_world

MOST = 200
"""Steps; every piece of code here gets through in far fewer."""


def options(tag: str, number: int = 0) -> AttachOptions:
    return AttachOptions(f"attachment-{number:06}", Kind.EXEC, tag, start=Start(), takeover=True)


def echo(request: StartRequest) -> Endpoint:
    sink = Sink()
    return exec_endpoint(EchoSource(sink), b"", sink)


@dataclass
class Survivor:
    """Somebody else on the same link, in the middle of a conversation."""

    attachment: ClientAttachment
    said: int = 0

    async def talk(self) -> None:
        """Say something and hear it back, at the right place."""
        word = f"word {self.said}\n".encode()
        await self.attachment.send(word)
        got = b""
        with trio.fail_after(30):
            while len(got) < len(word):
                item = await self.attachment.receive()
                assert isinstance(item, Output)
                assert item.offset == self.said + len(got)
                got += item.data
        assert got == word
        self.said += len(word)


@asynccontextmanager
async def world_with_survivor() -> AsyncIterator[tuple[RelayWorld, Trunk, Survivor]]:
    async with open_world(echo) as world, world.trunk() as trunk:
        survivor = Survivor(await trunk.attach(options("survivor", 999_999)))
        await survivor.talk()
        yield world, trunk, survivor
        await survivor.talk()


async def at_every_checkpoint(
    code: Callable[[], Awaitable[object]], after: Callable[[int], Awaitable[object]]
) -> int:
    """Cancel `code` at each of its checkpoints in turn, and call `after` each time."""
    for step in range(1, MOST):
        cancelled = await cancel_at(step, code)
        await after(step)
        if not cancelled:
            return step
    raise AssertionError(f"still not through after {MOST} steps")


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def test_attaching(autojump_clock: object) -> None:
    async with world_with_survivor() as (world, trunk, survivor):
        numbers = iter(range(MOST))
        attached: list[ClientAttachment] = []

        async def attach() -> None:
            attached.append(await trunk.attach(options("t", next(numbers))))

        async def check(step: int) -> None:
            while attached:
                trunk.detach(attached.pop())
            await world.settle()
            assert trunk.statistics().attachments == 1
            assert list(trunk._by_stream.values()) == [survivor.attachment]
            assert trunk._link is not None
            assert trunk._link.connection.statistics().streams == 1
            (server,) = world.servers
            assert server.link.connection.statistics().streams == 1
            assert server._attaching == {}
            for stream in world.host.statistics():
                assert len(stream.attachments) == (1 if stream.tag == "survivor" else 0)
            await survivor.talk()

        # What an attach starts stays: one task for the stream, and its two channels and input.
        await trunk.attach(options("t", 777_777))
        await trio.testing.wait_all_tasks_blocked()
        trunk.detach(next(a for a in trunk._attachments.values() if a.options.tag == "t"))
        await trio.testing.wait_all_tasks_blocked()
        before = tasks()
        assert await at_every_checkpoint(attach, check) >= 2
        assert tasks() == before
    assert [request.kind for request in world.starts] == [Kind.EXEC] * 2


async def test_sending(autojump_clock: object) -> None:
    """Some, all or none is taken: what comes out is a beginning of what was sent."""
    async with world_with_survivor() as (world, trunk, survivor):
        attachment = await trunk.attach(options("t"))
        before = tasks()
        data = bytes(range(256)) * (2 * INPUT_BUFFER // 256)
        total = 0

        async def send() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(drain)
                await attachment.send(data)
                nursery.cancel_scope.cancel()

        async def drain() -> None:
            nonlocal total
            while True:
                item = await attachment.receive()
                assert isinstance(item, Output)
                assert item.offset == total
                total += len(item.data)

        async def check(step: int) -> None:
            nonlocal total
            taken = attachment._input.end
            while total < taken:
                item = await attachment.receive()
                assert isinstance(item, Output)
                assert item.offset == total
                total += len(item.data)
            await world.settle()
            assert total == taken
            assert tasks() == before
            await survivor.talk()

        assert await at_every_checkpoint(send, check) >= 2


async def test_receiving(autojump_clock: object) -> None:
    source = ManualSource()

    def start(request: StartRequest) -> Endpoint:
        return pty_endpoint(source) if request.kind is Kind.PTY else echo(request)

    async with open_world(start) as world, world.trunk() as trunk:
        attachment = await trunk.attach(
            AttachOptions("attachment-aaaaaa", Kind.PTY, "t", start=Start())
        )
        got = bytearray()
        written = bytearray()
        before = tasks()

        async def receive() -> None:
            for _ in range(5):
                item = await attachment.receive()
                assert isinstance(item, Output)
                assert item.offset == len(got)
                got.extend(item.data)
                source.write(b"next")
                written.extend(b"next")

        async def check(step: int) -> None:
            source.write(b"%d" % step)
            written.extend(b"%d" % step)
            await world.settle()
            assert tasks() == before

        source.write(b"first")
        written.extend(b"first")
        assert await at_every_checkpoint(receive, check) >= 5
        while len(got) < len(written):
            item = await attachment.receive()
            assert isinstance(item, Output)
            got.extend(item.data)
        assert got == written


async def test_closing_a_trunk(autojump_clock: object) -> None:
    """However the block ends, the owner is told or notices, and no task is left."""
    async with world_with_survivor() as (world, _, survivor):
        before: int | None = None

        async def use() -> None:
            async with world.trunk() as trunk:
                attachment = await trunk.attach(options("t"))
                await attachment.send(b"x" * 1000)
                await attachment.receive()
                trunk.detach(attachment)

        async def check(step: int) -> None:
            nonlocal before
            await world.settle()
            assert len(world.servers) == 1
            streams = {s.tag: s for s in world.host.statistics()}
            if "t" in streams:
                assert not any(a.bound for a in streams["t"].attachments)
                if before is None:
                    before = tasks()
                assert tasks() == before
            await survivor.talk()

        assert await at_every_checkpoint(use, check) >= 3
        assert len(world.starts) == 2


async def test_serving_a_link(autojump_clock: object) -> None:
    """A server that is cancelled at any point leaves its attachments to their clients."""
    async with world_with_survivor() as (world, _, survivor):
        before: int | None = None

        async def serve() -> None:
            ours, theirs = carrier_pair()

            async def dial() -> Carrier:
                return ours

            server = ServerLink(theirs, world.host, world.grant(), "owner")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(use, dial)
                await server.run()
                nursery.cancel_scope.cancel()

        async def use(dial: Callable[[], Awaitable[Carrier]]) -> None:
            async with open_trunk(dial) as trunk:
                attachment = await trunk.attach(options("t"))
                await attachment.send(b"x" * 1000)
                await attachment.receive()

        async def check(step: int) -> None:
            nonlocal before
            await world.settle()
            streams = {s.tag: s for s in world.host.statistics()}
            if "t" in streams:
                assert not any(a.bound for a in streams["t"].attachments)
                if before is None:
                    before = tasks()
                assert tasks() == before
            await survivor.talk()

        assert await at_every_checkpoint(serve, check) >= 5


@pytest.mark.parametrize("kind", [Kind.EXEC, Kind.PTY])
async def test_ending_a_session(kind: Kind, autojump_clock: object) -> None:
    """Whenever a session's block is cancelled, its endpoints are closed and nothing runs on."""
    made: list[Endpoint] = []

    def start(request: StartRequest) -> Endpoint:
        sink = Sink()
        source = EchoSource(sink)
        endpoint = (
            pty_endpoint(source, sink) if kind is Kind.PTY else exec_endpoint(source, b"", sink)
        )
        made.append(endpoint)
        return endpoint

    before = tasks()

    async def session() -> None:
        async with open_world(start) as world, world.trunk() as trunk:
            attachment = await trunk.attach(
                AttachOptions("attachment-aaaaaa", kind, "t", start=Start())
            )
            await attachment.send(b"hello")
            await attachment.receive()
            if kind is Kind.EXEC:
                attachment.send_eof()
                assert await attachment.wait() == ExitStatus(code=0)

    async def check(step: int) -> None:
        await trio.testing.wait_all_tasks_blocked()
        assert tasks() == before
        assert all(endpoint.closed for endpoint in made)  # type: ignore[attr-defined]  # scripted
        made.clear()

    assert await at_every_checkpoint(session, check) >= 4
