"""Fairness, spinning and the book-keeping of the reactor."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from functools import partial

import pytest
import trio
import trio.testing

from relay.carrier import Buffer
from relay.reactor import open_reactor
from relay.reactor.pipes import IDLE_MAX, Pipes
from relay.websocket.frames import Opcode, encode_frame
from relay.websocket.reader import FrameReader
from relay.websocket.unmasking import unmask_in_c, unmask_in_python
from tests.testing.joined import open_joined

pytestmark = pytest.mark.timeout(60)


async def echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


@pytest.mark.parametrize("spin", [0.0, 30e-6])
async def test_a_flood_starves_neither_other_connections_nor_other_tasks(spin: float) -> None:
    async with (
        open_reactor(spin=spin) as reactor,
        open_joined(reactor) as flooded,
        open_joined(reactor) as quiet,
        trio.open_nursery() as nursery,
    ):

        async def flood() -> None:
            block = bytes(1 << 20)
            while True:
                await flooded.server.send_all(block)

        async def drain() -> None:
            while await flooded.client_stream.receive_some(1 << 20):
                pass

        nursery.start_soon(flood)
        nursery.start_soon(drain)
        nursery.start_soon(echo, quiet.server)
        slowest = 0
        for number in range(200):
            before = flooded.bridge.statistics().bytes_down
            await quiet.client.send_binary(f"{number:4}".encode())
            assert await quiet.client.receive(merge=True) is not None
            slowest = max(slowest, flooded.bridge.statistics().bytes_down - before)
        # Half a dozen passes through the scheduler, with a turn of the reactor in each.
        assert slowest < 32 << 20
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("opcode", "payload"), [(9, b""), (10, b""), (2, b""), (2, b"x"), (1, b"")]
)
@pytest.mark.parametrize("implementation", ["c", "python"])
async def test_frames_that_carry_next_to_nothing_starve_nobody(
    opcode: int, payload: bytes, implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They can come faster than they are handled, so a turn must not last until they are."""
    chosen = unmask_in_c if implementation == "c" else unmask_in_python
    if chosen is None:
        pytest.skip("the C codec was not built")
    monkeypatch.setattr("relay.websocket.reader.unmask", chosen)
    block = encode_frame(Opcode(opcode), payload, mask=b"\1\2\3\4") * 100_000
    headers = read = 0
    read_header, read_stream = FrameReader._read_header, FrameReader.read_stream

    def count_headers(self: FrameReader) -> bool:
        nonlocal headers
        headers += 1
        return read_header(self)

    def count_bytes(self: FrameReader, data: memoryview, size: int) -> Buffer:
        nonlocal read
        read += size
        return read_stream(self, data, size)

    monkeypatch.setattr(FrameReader, "_read_header", count_headers)
    monkeypatch.setattr(FrameReader, "read_stream", count_bytes)
    async with (
        open_reactor() as reactor,
        open_joined(reactor) as joined,
        trio.open_nursery() as nursery,
    ):
        joined.bridge._up._source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)

        def flood() -> None:
            # From another thread, so that it does not wait for the turn to be over.
            with suppress(OSError), socket.socket(fileno=os.dup(number)) as raw:
                raw.setblocking(True)
                for _ in range(20):
                    raw.sendall(block)

        async def swallow() -> None:
            while await joined.server.receive_some(1 << 20):
                pass

        number = joined.client_stream.socket.fileno()
        nursery.start_soon(swallow)
        nursery.start_soon(partial(trio.to_thread.run_sync, flood, abandon_on_cancel=True))
        most_headers = most_read = 0
        for _ in range(100):
            before = headers, read
            await trio.lowlevel.checkpoint()
            most_headers = max(most_headers, headers - before[0])
            most_read = max(most_read, read - before[1])
        joined.client_stream.socket.shutdown(socket.SHUT_RDWR)
        nursery.cancel_scope.cancel()
    assert most_headers <= 10_000
    assert most_read <= 4 << 20


async def test_spinning_answers_and_comes_to_rest() -> None:
    async with (
        open_reactor(spin=50e-6) as reactor,
        open_joined(reactor) as joined,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(echo, joined.server)
        for _ in range(100):
            await joined.client.send_binary(b"x")
            assert await joined.client.receive(merge=True) is not None
        await trio.testing.wait_all_tasks_blocked(0.01)
        turns = reactor.statistics().turns
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert reactor.statistics().turns == turns
        assert reactor.statistics().waiting == 0
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("spin", [-1.0, 0.01])
async def test_spin_is_a_short_time(spin: float) -> None:
    with pytest.raises(ValueError, match="spin"):
        async with open_reactor(spin=spin):
            pass


async def test_nothing_is_left_open() -> None:
    before = set(os.listdir("/proc/self/fd"))
    async with open_reactor() as reactor:
        for _ in range(20):
            async with open_joined(reactor) as joined:
                await joined.client.send_binary(b"x")
                assert await joined.server.receive_some(1) == b"x"
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_few_pipes_are_kept() -> None:
    before = len(os.listdir("/proc/self/fd"))
    pipes = Pipes()
    taken = [pipes.take() for _ in range(IDLE_MAX + 3)]
    assert pipes.lent == len(taken)
    for pipe in taken:
        assert pipe is not None
        pipes.give_back(pipe, is_empty=True)
    assert pipes.lent == 0
    assert len(os.listdir("/proc/self/fd")) == before + 2 * IDLE_MAX
    dirty = pipes.take()
    assert dirty is not None
    os.write(dirty.writing, b"left over")
    pipes.give_back(dirty, is_empty=False)
    clean = pipes.take()
    assert clean is not None
    with pytest.raises(BlockingIOError):
        os.read(clean.reading, 1)
    pipes.give_back(clean, is_empty=True)
    pipes.close()
    assert len(os.listdir("/proc/self/fd")) == before
