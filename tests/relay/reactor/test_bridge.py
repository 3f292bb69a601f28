"""A WebSocket and a port joined by the reactor, over real sockets."""

from __future__ import annotations

import hashlib
import os
import socket
import struct

import pytest
import trio
import trio.testing

from relay.reactor import BridgeEnd, open_reactor
from relay.reactor import downstream as downstream_module
from relay.reactor.upstream import HELD_MAX, Upstream
from relay.websocket import Binary, Close, Role, Text, WebSocket
from relay.websocket.frames import Opcode, Pong, encode_frame
from relay.websocket.reader import FrameReader
from tests.testing.joined import Joined, open_joined
from tests.testing.websocket_pair import tcp_pair

MASK = b"\x10\x20\x30\x40"
READ = 256 * 1024

pytestmark = pytest.mark.timeout(60)


async def take(websocket: WebSocket, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        message = await websocket.receive(merge=True)
        assert isinstance(message, Binary), message
        got += message.data
    return bytes(got)


async def take_raw(stream: trio.SocketStream, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        data = await stream.receive_some(size - len(got))
        assert data
        got += data
    return bytes(got)


def reset(stream: trio.SocketStream) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


async def settle(joined: Joined) -> None:
    """Wait until the kernel's buffers are full and nothing moves any more."""
    before = None
    while (now := joined.bridge.statistics()) != before:
        before = now
        for _ in range(10):
            await trio.testing.wait_all_tasks_blocked(0.002)


@pytest.mark.parametrize("size", [1, 125, 126, 65_535, 65_536, 300_000, 5_000_000])
async def test_bytes_go_both_ways(size: int) -> None:
    content = os.urandom(size)
    async with open_reactor() as reactor, open_joined(reactor) as joined:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(joined.client.send_binary, content)
            assert await take_raw(joined.server, size) == content
        async with trio.open_nursery() as nursery:
            nursery.start_soon(joined.server.send_all, content)
            assert await take(joined.client, size) == content
        statistics = joined.bridge.statistics()
        assert (statistics.bytes_down, statistics.bytes_up) == (size, size)
        assert (statistics.held_down, statistics.held_up) == (0, 0)


async def test_a_long_flow_is_moved_by_the_kernel_and_stays_whole() -> None:
    total = 60_000_000
    block = os.urandom(1_000_003)
    async with open_reactor() as reactor, open_joined(reactor) as joined:
        sent, got = hashlib.sha256(), hashlib.sha256()
        pipes = 0

        async def send() -> None:
            left = total
            while left:
                piece = block[: min(left, len(block))]
                await joined.server.send_all(piece)
                sent.update(piece)
                left -= len(piece)
            await joined.server.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            left = total
            while left:
                message = await joined.client.receive(merge=True)
                assert isinstance(message, Binary)
                got.update(message.data)
                left -= len(message.data)
                pipes = max(pipes, reactor.statistics().pipes)
        assert got.digest() == sent.digest()
        assert pipes == 1
        assert await joined.wait_end() is BridgeEnd.PORT_ENDED
        assert reactor.statistics().pipes == 0


async def test_text_and_fragments_are_bytes() -> None:
    async with open_reactor() as reactor, open_joined(reactor) as joined:
        frames = (
            encode_frame(Opcode.BINARY, b"one ", mask=MASK, final=False)
            + encode_frame(Opcode.PING, b"between", mask=MASK)
            + encode_frame(Opcode.CONTINUATION, b"two ", mask=MASK)
            + encode_frame(Opcode.TEXT, "three é".encode(), mask=MASK)
            + encode_frame(Opcode.BINARY, b" four", mask=MASK)
        )
        for place in range(len(frames)):
            await joined.client_stream.send_all(frames[place : place + 1])
        assert await take_raw(joined.server, 21) == "one two three é four".encode()
        await joined.server.send_all(b"answer")
        assert await take(joined.client, 6) == b"answer"
        assert joined.client.statistics().pongs_received == 1


async def test_pings_are_answered_between_frames_while_the_client_does_not_read() -> None:
    async with open_reactor() as reactor, open_joined(reactor) as joined:
        content = os.urandom(30_000_000)

        async def send() -> None:
            await joined.server.send_all(content)
            await joined.server.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await settle(joined)
            for number in range(100):
                await joined.client.ping(f"ping {number}".encode())
            await settle(joined)
            held = joined.bridge.statistics().held_down
            assert 0 < held <= READ + 64
            assert await take(joined.client, len(content)) == content
        assert await joined.wait_end() is BridgeEnd.PORT_ENDED
        # The newest is enough; the kernel may have taken a frame or two more meanwhile.
        assert 1 <= joined.client.statistics().pongs_received < 10


async def test_pings_are_answered_while_the_port_does_not_read_for_a_while() -> None:
    async with open_reactor() as reactor, open_joined(reactor) as joined:
        joined.server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        joined.port.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sent = 0
        while joined.bridge.statistics().held_up == 0:
            await joined.client.send_binary(bytes(60_000))
            sent += 60_000
            await settle(joined)
        await joined.client.ping(b"still there?")
        await joined.server.send_all(b"x")
        assert await take(joined.client, 1) == b"x"
        assert joined.client.statistics().pongs_received == 1
        assert len(await take_raw(joined.server, sent)) == sent


async def test_a_port_that_does_not_read_is_sent_no_more_than_it_may_hold() -> None:
    async with open_reactor() as reactor, open_joined(reactor) as joined:
        content = os.urandom(40_000_000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(joined.client.send_binary, content)
            await settle(joined)
            held = joined.bridge.statistics().held_up
            assert HELD_MAX <= held <= HELD_MAX + READ
            assert await take_raw(joined.server, len(content)) == content


async def test_the_end_of_the_port_comes_after_its_last_byte() -> None:
    async with open_reactor() as reactor, open_joined(reactor) as joined:
        await joined.server.send_all(b"last words")
        await joined.server.send_eof()
        assert await joined.wait_end() is BridgeEnd.PORT_ENDED
        assert await take(joined.client, 10) == b"last words"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(joined.websocket.close)
            assert await joined.client.receive() is None
        assert joined.client.peer_close == Close(1000, "")


async def test_what_the_client_sent_before_its_close_is_there_for_the_port() -> None:
    async with open_reactor() as reactor, open_joined(reactor) as joined:
        joined.server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        content = os.urandom(200_000)
        await joined.client.send_binary(content)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(joined.client.close, 4001, "done")
            assert await joined.wait_end() is BridgeEnd.CLIENT_CLOSED
            await joined.websocket.close()
        assert joined.client.peer_close == Close(4001, "")  # answered with its own code
        async with trio.open_nursery() as nursery:
            nursery.start_soon(joined.port.send_all, joined.bridge.undelivered)
            assert await take_raw(joined.server, len(content)) == content


@pytest.mark.parametrize("port_reads", [True, False])
async def test_a_client_that_vanishes(port_reads: bool) -> None:
    async with open_reactor() as reactor, open_joined(reactor) as joined:
        if not port_reads:
            with trio.move_on_after(0.3):
                await joined.client.send_binary(bytes(40_000_000))
        await joined.server.send_all(b"unread")
        reset(joined.client_stream)
        await joined.server.send_all(b"to nobody")
        assert await joined.wait_end() is BridgeEnd.CLIENT_VANISHED


async def test_a_client_that_vanishes_while_everything_is_held_up_by_a_silent_port() -> None:
    """Nothing is read from it and nothing written to it, so no system call would tell."""
    async with open_reactor() as reactor, open_joined(reactor) as joined:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(joined.client.send_binary, bytes(40_000_000))
            await settle(joined)
            nursery.cancel_scope.cancel()
        assert joined.bridge.statistics().held_up >= HELD_MAX
        reset(joined.client_stream)
        assert await joined.wait_end() is BridgeEnd.CLIENT_VANISHED


async def test_a_client_that_ends_without_a_close_frame() -> None:
    async with open_reactor() as reactor, open_joined(reactor) as joined:
        await joined.client_stream.send_all(encode_frame(Opcode.BINARY, b"before", mask=MASK))
        await joined.client_stream.send_eof()
        assert await joined.wait_end() is BridgeEnd.CLIENT_VANISHED
        assert await take_raw(joined.server, 6) == b"before"


async def test_a_port_that_breaks() -> None:
    async with open_reactor() as reactor, open_joined(reactor) as joined:
        reset(joined.server)
        assert await joined.wait_end() is BridgeEnd.PORT_BROKE
        assert joined.bridge.detail


async def test_a_port_that_broke_is_told_though_a_write_found_out_first() -> None:
    """The kernel tells of a reset once; whoever reads later sees an end like any other."""
    async with open_reactor() as reactor, open_joined(reactor) as joined:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(joined.server.send_all, bytes(40_000_000))
            await settle(joined)  # the client does not read, so nobody reads from the port
            nursery.cancel_scope.cancel()
        reset(joined.server)
        await joined.client.send_binary(b"to nobody")
        while joined.bridge.statistics().bytes_up == 0:
            await trio.testing.wait_all_tasks_blocked(0.002)
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                while await joined.client.receive(merge=True) is not None:
                    pass

            nursery.start_soon(read)
            assert await joined.wait_end() is BridgeEnd.PORT_BROKE
            assert joined.bridge.detail
            nursery.cancel_scope.cancel()


async def test_a_port_that_reads_no_more_may_go_on_talking() -> None:
    async with open_reactor() as reactor, open_joined(reactor) as joined:
        joined.server.socket.shutdown(socket.SHUT_RD)
        await joined.client.send_binary(b"to nobody")
        await joined.server.send_all(b"still here")
        assert await take(joined.client, 10) == b"still here"


async def test_a_client_that_breaks_the_protocol_is_told() -> None:
    async with open_reactor() as reactor, open_joined(reactor) as joined:
        frame = encode_frame(Opcode.BINARY, b"good", mask=MASK)
        await joined.client_stream.send_all(frame + b"\x82\x05plain")
        assert await joined.wait_end() is BridgeEnd.CLIENT_BROKE_PROTOCOL
        assert joined.bridge.error is not None
        assert await take_raw(joined.server, 4) == b"good"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(joined.websocket.fail, joined.bridge.error)
            assert await joined.client.receive() is None
            joined.client_stream.socket.close()
        assert joined.client.peer_close is not None
        assert joined.client.peer_close.code == 1002


@pytest.mark.parametrize("amount", [3_000_000, 30_000_000])
async def test_stopping_in_the_middle_of_a_frame_leaves_a_whole_one(amount: int) -> None:
    """What was announced by a header is still sent, from this process or from a pipe."""
    async with open_reactor() as reactor, open_joined(reactor) as joined:
        content = os.urandom(amount)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(joined.server.send_all, content)
            await settle(joined)
            moved = joined.bridge.statistics().bytes_down
            joined.bridge.stop()
            assert await joined.wait_end() is BridgeEnd.STOPPED
            assert reactor.statistics().pipes == 0
            got = bytearray()

            async def read() -> None:
                while (message := await joined.client.receive(merge=True)) is not None:
                    assert isinstance(message, Binary)
                    got.extend(message.data)

            async with trio.open_nursery() as both:
                both.start_soon(read)
                both.start_soon(joined.websocket.close, 1001, "bye")
            nursery.cancel_scope.cancel()
        assert bytes(got) == content[:moved]
        assert joined.client.peer_close == Close(1001, "bye")


async def test_cancellation_leaves_nothing_registered() -> None:
    async with open_reactor() as reactor:
        async with open_joined(reactor) as joined:
            await joined.client.send_binary(b"x")
            assert await take_raw(joined.server, 1) == b"x"
            assert reactor.statistics().sockets == 2
        assert reactor.statistics().sockets == 0


async def test_a_socket_closed_by_somebody_else_moves_nothing() -> None:
    """Its number may belong to another file by then."""
    async with open_reactor() as reactor, open_joined(reactor) as joined:
        await joined.client.send_binary(b"x")
        assert await take_raw(joined.server, 1) == b"x"
        number = joined.port.socket.fileno()
        joined.port.socket.close()
        reading, writing = os.pipe()
        try:
            assert number in (reading, writing)
            await joined.client.send_binary(b"not for a pipe")
            await settle(joined)
            os.set_blocking(reading, False)
            with pytest.raises(BlockingIOError):
                os.read(reading, 1)
        finally:
            os.close(reading)
            os.close(writing)


async def test_a_bug_ends_one_connection_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        open_reactor() as reactor,
        open_joined(reactor) as healthy,
        open_joined(reactor) as sick,
    ):
        pump = Upstream.pump

        def sometimes(self: Upstream) -> int:
            if self._bridge is sick.bridge:
                raise ZeroDivisionError
            return pump(self)

        monkeypatch.setattr(Upstream, "pump", sometimes)
        await sick.client.send_binary(b"ouch")
        assert await sick.wait_end() is BridgeEnd.FAILED
        await healthy.client.send_binary(b"fine")
        assert await take_raw(healthy.server, 4) == b"fine"


async def test_without_pipes_bytes_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.reactor.pipes.LENT_MAX", 0)
    content = os.urandom(20_000_000)
    async with open_reactor() as reactor, open_joined(reactor) as joined:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(joined.server.send_all, content)
            assert await take(joined.client, len(content)) == content
        assert reactor.statistics().pipes == 0


@pytest.mark.parametrize("size", [1, 100, 5_000])
async def test_thin_flows_give_their_pipe_back(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downstream_module, "SPLICE_AFTER", 1)
    flood = os.urandom(8_000_000)
    async with open_reactor() as reactor, open_joined(reactor) as joined:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(joined.server.send_all, flood)
            assert await take(joined.client, len(flood)) == flood
        for _ in range(5):
            await joined.server.send_all(flood[:size])
            assert await take(joined.client, size) == flood[:size]
        assert reactor.statistics().pipes == 0


async def test_a_websocket_in_use_or_not_on_a_socket_is_not_lent() -> None:
    near, far = trio.testing.memory_stream_pair()
    websocket = WebSocket(near, Role.SERVER)
    assert websocket.lend() is None
    await far.aclose()
    stream, other = await tcp_pair()
    websocket = WebSocket(stream, Role.SERVER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(websocket.receive)
        await trio.testing.wait_all_tasks_blocked()
        assert websocket.lend() is None
        nursery.cancel_scope.cancel()
    assert websocket.lend() is not None
    stream.socket.close()
    other.socket.close()


def test_the_reader_used_here_knows_pongs_and_text() -> None:
    reader = FrameReader(Role.SERVER)
    data = encode_frame(Opcode.PONG, b"!", mask=MASK) + encode_frame(Opcode.TEXT, b"t", mask=MASK)
    assert reader.read_stream(memoryview(bytearray(data)), len(data)) == b""
    assert reader.next_event() == Pong(b"!")
    assert reader.next_event() == Text("t")
