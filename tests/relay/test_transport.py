"""The transport: Trio's own stream tests cannot apply, so the same promises one by one."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from relay.transport import BUDGET, CALL_COST, READ_MAX, SocketTransport, Transport, open_transport
from tests.testing.websocket_pair import tcp_pair


@pytest.fixture(params=["tcp", "memory"])
async def pair(request: pytest.FixtureRequest) -> tuple[Transport, Transport]:
    ends = await tcp_pair() if request.param == "tcp" else trio.testing.memory_stream_pair()
    return open_transport(ends[0]), open_transport(ends[1])


async def close(pair: tuple[Transport, Transport]) -> None:
    for end in pair:
        await end.aclose()


async def receive_exactly(transport: Transport, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = await transport.receive()
        assert piece
        data += piece
    return data


@pytest.mark.parametrize(
    "parts",
    [
        [b"one"],
        [b"header", memoryview(b"pay"), bytearray(b"load")],
        [b"x" * 100_000, b"y" * 100_000],
        [bytes([i & 0xFF]) * 3 for i in range(2000)],
        [bytes([i & 0xFF]) * 30_000 for i in range(40)],
        [b"", b"a", b"", b"b" * 50_000, b""],
    ],
    ids=["one", "few", "large", "many small", "many large", "empty among them"],
)
async def test_buffers_arrive_joined(pair: tuple[Transport, Transport], parts: list[bytes]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pair[0].send, parts)
        whole = b"".join(parts)
        assert await receive_exactly(pair[1], len(whole)) == whole
    await close(pair)


async def test_the_end(pair: tuple[Transport, Transport]) -> None:
    await pair[0].send([b"last"])
    await pair[0].send_eof()
    assert await pair[1].receive() == b"last"
    assert await pair[1].receive() == b""
    await pair[1].send([b"the other direction"])
    assert await pair[0].receive() == b"the other direction"
    await close(pair)


async def test_limited_reads(pair: tuple[Transport, Transport]) -> None:
    await pair[0].send([b"abcdef"])
    assert await pair[1].receive(4) == b"abcd"
    assert await pair[1].receive(4) == b"ef"
    await close(pair)


async def test_closing_wakes_who_waits(pair: tuple[Transport, Transport]) -> None:
    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await pair[0].receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        await pair[0].aclose()
    with pytest.raises(trio.ClosedResourceError):
        await pair[0].receive()
    with pytest.raises(trio.ClosedResourceError):
        await pair[0].send([b"x"])
    await close(pair)


async def test_a_broken_peer(pair: tuple[Transport, Transport]) -> None:
    await pair[1].aclose()

    async def send_for_ever() -> None:
        while True:
            await pair[0].send([b"x"])

    with pytest.raises(trio.BrokenResourceError):
        await send_for_ever()
    await close(pair)


async def test_two_senders_are_a_mistake() -> None:
    ends = await tcp_pair()
    transport = open_transport(ends[0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.send, [bytes(1 << 26)])
        await trio.testing.wait_all_tasks_blocked(0.01)
        with pytest.raises(trio.BusyResourceError):
            await transport.send([b"x"])
        nursery.cancel_scope.cancel()
    await transport.aclose()
    await trio.aclose_forcefully(ends[1])


async def test_sending_without_waiting() -> None:
    ends = await tcp_pair()
    sender, receiver = open_transport(ends[0]), open_transport(ends[1])
    sent = 0
    while count := sender.send_nowait(bytes(1 << 16)):
        sent += count
    assert await receive_exactly(receiver, sent) == bytes(sent)
    await sender.wait_writable()
    assert sender.send_nowait(b"x") == 1
    await close((sender, receiver))
    with pytest.raises(trio.ClosedResourceError):
        await sender.wait_writable()
    memory = open_transport(trio.testing.memory_stream_pair()[0])
    assert memory.send_nowait(b"x") == 0


async def test_fast_peers_share_the_processor() -> None:
    """However fast the peer, other tasks run at least once per budget."""
    ends = await tcp_pair()
    sender, receiver = open_transport(ends[0]), open_transport(ends[1])
    assert isinstance(sender, SocketTransport)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        rounds = 4 * BUDGET // CALL_COST
        for _ in range(rounds):
            await sender.send([b"x"])
            await receiver.receive(1)
        assert turns >= 4
        nursery.cancel_scope.cancel()
    await close((sender, receiver))


async def test_reads_grow_with_the_flow_and_shrink_again() -> None:
    ends = await tcp_pair()
    sender, receiver = open_transport(ends[0]), open_transport(ends[1])
    largest = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.send, [bytes(1 << 25)])
        total = 0
        while total < 1 << 25:
            data = await receiver.receive()
            largest = max(largest, len(data))
            total += len(data)
    assert 1 << 16 <= largest <= READ_MAX
    assert isinstance(receiver, SocketTransport)
    for _ in range(10):
        await sender.send([b"x"])
        await receiver.receive()
    assert receiver._read_size == 8 * 1024
    await close((sender, receiver))


async def test_a_cancelled_receive_takes_nothing() -> None:
    ends = await tcp_pair()
    sender, receiver = open_transport(ends[0]), open_transport(ends[1])
    with trio.CancelScope() as scope:
        scope.cancel()
        await receiver.receive()
    assert scope.cancelled_caught
    await sender.send([b"kept"])
    assert await receiver.receive() == b"kept"
    await close((sender, receiver))
