"""`WebSocket` against itself, and against bare sockets that misbehave."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from relay.websocket import Binary, Close, CloseCode, Text, WebSocket
from tests.testing.websocket_pair import websocket_pair

pytestmark = pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "memory"])


async def message(websocket: WebSocket) -> bytes:
    data = b""
    while True:
        piece = await websocket.receive()
        assert isinstance(piece, Binary)
        data += piece.data
        if piece.final:
            return data


async def _send_for_ever(websocket: WebSocket) -> None:
    while True:
        await websocket.send_binary(bytes(1 << 20))


async def test_messages_both_ways(tcp: bool) -> None:
    async with websocket_pair(tcp=tcp) as pair:
        for sender, receiver in (pair, pair[::-1]):
            await sender.send_text("grüße")
            assert await receiver.receive() == Text("grüße")
            await sender.send_binary(b"one")
            await sender.send_binary([b"t", memoryview(b"w"), bytearray(b"o")])
            await sender.send_binary(())
            assert [await message(receiver) for _ in range(3)] == [b"one", b"two", b""]
        assert pair[0].statistics().bytes_sent == len("grüße".encode()) + 6
        assert pair[0].statistics().bytes_received == len("grüße".encode()) + 6


async def test_large_messages_and_many_buffers(tcp: bool) -> None:
    async with websocket_pair(tcp=tcp) as pair, trio.open_nursery() as nursery:
        for sender, receiver in (pair, pair[::-1]):
            parts = [bytes([i & 0xFF]) * (i * 7) for i in range(1500)]
            nursery.start_soon(sender.send_binary, parts)
            assert await message(receiver) == b"".join(parts)


async def test_many_senders_do_not_mix(tcp: bool) -> None:
    async with websocket_pair(tcp=tcp) as (client, server), trio.open_nursery() as nursery:
        for i in range(8):
            nursery.start_soon(server.send_binary, bytes([i]) * 500_000)
        got = [await message(client) for _ in range(8)]
        assert sorted(got) == [bytes([i]) * 500_000 for i in range(8)]


async def test_closing(tcp: bool) -> None:
    async with websocket_pair(tcp=tcp) as (client, server):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.close, CloseCode.GOING_AWAY, "draining")
            assert await client.receive() is None
            assert client.peer_close == Close(1001, "draining")
            assert await client.receive() is None
            await client.close()
        assert server.peer_close == Close(1001, "")
        for end in (client, server):
            with pytest.raises(trio.ClosedResourceError):
                await end.receive()
            with pytest.raises(trio.ClosedResourceError):
                await end.send_binary(b"late")
            await end.aclose()


async def test_who_closed_is_told_apart(tcp: bool) -> None:
    async with websocket_pair(tcp=tcp) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(client.close)
        assert await server.receive() is None
        with pytest.raises(trio.BrokenResourceError, match="the peer closed"):
            await server.send_text("late")
        with pytest.raises(trio.ClosedResourceError):
            await client.send_text("late")
        await server.close()


async def test_closing_while_another_task_receives(tcp: bool) -> None:
    async with websocket_pair(tcp=tcp) as (client, server):
        got: list[object] = []

        async def receive() -> None:
            while (event := await server.receive()) is not None:
                got.append(event)
            got.append(None)

        async def answer() -> None:
            assert await client.receive() is None
            await client.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            await client.send_text("before")
            nursery.start_soon(answer)
            await server.close()
        assert got == [Text("before"), None]


async def test_closing_takes_over_when_the_receiver_is_cancelled(tcp: bool) -> None:
    async with websocket_pair(tcp=tcp) as (client, server), trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def receive() -> None:
            with scope:
                await server.receive()

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(server.close)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        assert await client.receive() is None
        await client.close()


async def test_a_peer_that_does_not_answer_the_close(
    tcp: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async with websocket_pair(tcp=tcp, close_timeout=5) as (_client, server):
        began = trio.current_time()
        await server.close()
        assert trio.current_time() - began == pytest.approx(5)
        with pytest.raises(trio.ClosedResourceError):
            await server.receive()


async def test_closing_past_a_stuck_sender(
    tcp: bool, autojump_clock: trio.testing.MockClock
) -> None:
    if not tcp:
        pytest.skip("a memory stream takes everything")
    async with websocket_pair(tcp=tcp) as (_client, server), trio.open_nursery() as nursery:

        async def flood() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await _send_for_ever(server)

        nursery.start_soon(flood)
        await trio.testing.wait_all_tasks_blocked(0.01)
        began = trio.current_time()
        await server.close()
        assert trio.current_time() - began == pytest.approx(5)


async def test_two_receivers_are_a_mistake(tcp: bool) -> None:
    async with websocket_pair(tcp=tcp) as (client, _), trio.open_nursery() as nursery:
        nursery.start_soon(client.receive)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await client.receive()
        nursery.cancel_scope.cancel()


async def test_cancelling_receive_loses_nothing(tcp: bool) -> None:
    async with websocket_pair(tcp=tcp) as (client, server), trio.open_nursery() as nursery:

        async def send() -> None:
            for i in range(300):
                await client.send_text(str(i))
                await trio.lowlevel.checkpoint()

        nursery.start_soon(send)
        got: list[str] = []
        while len(got) < 300:
            with trio.move_on_after(0.0005):
                while True:
                    event = await server.receive()
                    assert isinstance(event, Text)
                    got.append(event.text)
        assert got == [str(i) for i in range(300)]


async def test_a_cancelled_send_ends_sending(tcp: bool) -> None:
    if not tcp:
        pytest.skip("a memory stream takes everything")
    async with websocket_pair(tcp=tcp) as (client, server):
        scope = trio.CancelScope()

        async def flood() -> None:
            with scope:
                await _send_for_ever(server)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            await trio.testing.wait_all_tasks_blocked(0.01)
            scope.cancel()
        with pytest.raises(trio.BrokenResourceError, match="interrupted inside a frame"):
            await server.send_binary(b"x")
        await client.send_text("the other direction still works")
        assert await server.receive() == Text("the other direction still works")


async def test_pings_are_answered(tcp: bool) -> None:
    async with websocket_pair(tcp=tcp) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(server.receive)
        nursery.start_soon(client.receive)
        await client.ping(b"are you there")
        with trio.fail_after(20):
            while client.statistics().pongs_received < 1:
                await trio.testing.wait_all_tasks_blocked(0.001)
        assert server.statistics().pings_received == 1
        with pytest.raises(ValueError, match="125"):
            await client.ping(bytes(126))
        nursery.cancel_scope.cancel()


async def test_a_busy_peer_lets_others_run(tcp: bool) -> None:
    """A flood must not keep another task from its turns."""
    async with websocket_pair(tcp=tcp) as (client, server), trio.open_nursery() as nursery:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        nursery.start_soon(other)
        for _ in range(1000):
            await client.send_text("")
        before = turns
        for _ in range(1000):
            await server.receive()
        assert turns - before >= 10
        nursery.cancel_scope.cancel()
