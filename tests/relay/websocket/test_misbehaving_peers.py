"""`WebSocket` against bare sockets that flood, stall, break off or break the rules."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
import trio
import trio.testing

from relay.websocket import Binary, Close, FrameError, Role, Text, WebSocket
from relay.websocket.frames import Event, Opcode, Pong, encode_frame
from relay.websocket.reader import FrameReader
from tests.testing.websocket_pair import raw_peer

MASK = b"\x01\x02\x03\x04"


async def _send_for_ever(websocket: WebSocket, data: bytes) -> None:
    while True:
        await websocket.send_binary(data)


async def events_until_end(stream: trio.SocketStream, role: Role) -> list[Event]:
    """Read what the server sends until it ends the connection."""
    reader = FrameReader(role)
    events: list[Event] = []
    with trio.fail_after(20):
        while data := await stream.receive_some():
            reader.feed(data)
            while (event := reader.next_event()) is not None:
                events.append(event)
    return events


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param("8100", 1002, id="unmasked"),
        pytest.param("c18000000000", 1002, id="reserved bit"),
        pytest.param("818100000000ff", 1007, id="bad UTF-8"),
        pytest.param("81fe040000000000", 1009, id="too long"),
        pytest.param("474554202f20485454502f312e310d0a", 1002, id="HTTP"),
    ],
)
async def test_the_peer_is_told_what_it_did(data: str, code: int) -> None:
    async with raw_peer(Role.SERVER, max_text_bytes=1000) as (websocket, peer):
        async with trio.open_nursery() as nursery:
            events: list[Event] = []

            async def listen() -> None:
                events.extend(await events_until_end(peer, Role.CLIENT))
                await peer.aclose()

            async def babble() -> None:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await peer.send_all(bytes.fromhex(data) + bytes(300_000))

            nursery.start_soon(listen)
            nursery.start_soon(babble)
            with pytest.raises(trio.BrokenResourceError, match="protocol error") as caught:
                await websocket.receive()
        (close,) = events
        assert isinstance(close, Close)
        assert close.code == code
        assert close.reason
        assert isinstance(caught.value.__cause__, FrameError)
        with pytest.raises(trio.ClosedResourceError):
            await websocket.receive()


async def test_a_dropped_connection_is_not_a_close() -> None:
    async with raw_peer(Role.SERVER) as (websocket, peer):
        await peer.send_all(encode_frame(Opcode.TEXT, b"last", mask=MASK))
        await peer.send_eof()
        assert await websocket.receive() == Text("last")
        with pytest.raises(trio.BrokenResourceError, match="without a close frame"):
            await websocket.receive()
        await websocket.close()


async def test_a_reset_connection() -> None:
    async with raw_peer(Role.SERVER) as (websocket, peer):
        peer.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 1, 0))
        await peer.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await websocket.receive()
        with pytest.raises(trio.BrokenResourceError):
            await _send_for_ever(websocket, b"x")
        await websocket.close()


async def test_a_ping_inside_a_message_is_answered_before_its_end() -> None:
    async with raw_peer(Role.SERVER) as (websocket, peer):
        await peer.send_all(
            encode_frame(Opcode.BINARY, b"ab", mask=MASK, final=False)
            + encode_frame(Opcode.PING, b"now", mask=MASK)
            + encode_frame(Opcode.CONTINUATION, b"", mask=MASK, final=False)
        )
        assert await websocket.receive() == Binary(b"ab", False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(websocket.receive)
            assert await peer.receive_some(100) == encode_frame(Opcode.PONG, b"now", mask=None)
            await peer.send_all(encode_frame(Opcode.CONTINUATION, b"cd", mask=MASK))


async def test_only_the_newest_of_many_pings_waits() -> None:
    """A peer that pings without end and reads nothing costs one pong, and nothing interleaves."""
    async with raw_peer(Role.SERVER) as (websocket, peer), trio.open_nursery() as nursery:
        sizes = [1 << 20] * 40
        sent = trio.Event()

        async def send() -> None:
            for size in sizes:
                await websocket.send_binary(bytes(size))
            sent.set()

        async def receive() -> None:
            while await websocket.receive() is not None:
                pass

        nursery.start_soon(send)
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not sent.is_set()
        pings = 20_000
        for i in range(pings):
            await peer.send_all(encode_frame(Opcode.PING, b"%d" % i, mask=MASK))
        with trio.fail_after(20):
            while websocket.statistics().pings_received < pings:
                await trio.testing.wait_all_tasks_blocked(0.01)
        assert websocket.statistics().pongs_sent <= 2
        assert websocket.statistics().bytes_buffered == 0
        # Now read: whole frames only, and the newest ping is answered.
        reader = FrameReader(Role.CLIENT)
        got: list[int] = []
        pongs: list[bytes] = []
        size = 0
        with trio.fail_after(20):
            while len(got) < len(sizes) or pongs[-1:] != [b"%d" % (pings - 1)]:
                reader.feed(await peer.receive_some())
                while (event := reader.next_event()) is not None:
                    match event:
                        case Binary(data, final):
                            size += len(data)
                            if final:
                                got.append(size)
                                size = 0
                        case Pong(payload):
                            pongs.append(payload)
        assert got == sizes
        assert len(pongs) <= 3
        nursery.cancel_scope.cancel()


async def test_a_pong_that_the_kernel_does_not_take_goes_out_later() -> None:
    """The kernel's buffers are full, nobody sends any more; the peer pings, and then reads."""
    async with raw_peer(Role.SERVER) as (websocket, peer), trio.open_nursery() as nursery:
        filled = 0
        # Fill them underneath, and leave the WebSocket the rest of the last frame to send first.
        frame = encode_frame(Opcode.BINARY, bytes(1000), mask=None)
        while (count := websocket._transport.send_nowait(frame)) == len(frame):
            filled += 1
        websocket._unsent = frame[count:] if count else b""
        nursery.start_soon(websocket.receive)
        await peer.send_all(encode_frame(Opcode.PING, b"late", mask=MASK))
        with trio.fail_after(20):
            while not websocket.statistics().pings_received:
                await trio.testing.wait_all_tasks_blocked(0.01)
        reader = FrameReader(Role.CLIENT)
        binaries = 0
        pong: Event | None = None
        with trio.fail_after(20):
            while pong is None:
                reader.feed(await peer.receive_some())
                while (event := reader.next_event()) is not None:
                    if isinstance(event, Binary):
                        binaries += event.final
                    else:
                        pong = event
        assert pong == Pong(b"late")
        assert binaries == filled + bool(count)
        nursery.cancel_scope.cancel()


async def test_a_ping_flood_gives_others_their_turn() -> None:
    async with raw_peer(Role.SERVER) as (websocket, peer), trio.open_nursery() as nursery:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        flood = encode_frame(Opcode.PING, b"", mask=MASK) * 20_000
        nursery.start_soon(peer.send_all, flood)
        nursery.start_soon(other)
        nursery.start_soon(websocket.receive)
        with trio.fail_after(20):
            while websocket.statistics().pings_received < 20_000:
                await trio.lowlevel.checkpoint()
        assert turns > 300
        nursery.cancel_scope.cancel()


async def test_the_client_role_masks_with_fresh_keys() -> None:
    async with raw_peer(Role.CLIENT) as (websocket, peer):
        for size in (5, 100_000):
            raw = b""
            async with trio.open_nursery() as nursery:
                nursery.start_soon(websocket.send_binary, bytes(size))
                nursery.start_soon(websocket.send_binary, bytes(size))
                while len(raw) < 2 * size + 12:
                    raw += await peer.receive_some()
            reader = FrameReader(Role.SERVER)
            reader.feed(raw)
            got = b""
            while (event := reader.next_event()) is not None:
                assert isinstance(event, Binary)
                got += event.data
            assert got == bytes(2 * size)
            # Zeros show the key: the two frames must not look alike.
            assert raw[: len(raw) // 2] != raw[len(raw) // 2 :]


async def test_the_server_ends_tcp_and_the_client_waits_for_it() -> None:
    # RFC 6455 section 7.1.1.
    async with raw_peer(Role.CLIENT) as (client, peer), trio.open_nursery() as nursery:
        nursery.start_soon(client.close)
        close = await peer.receive_some()
        assert close[0] == 0x88
        await peer.send_all(encode_frame(Opcode.CLOSE, b"\x03\xe8", mask=None))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert client._transport._socket.fileno() >= 0  # type: ignore[attr-defined]  # TCP
        await peer.aclose()
    assert client._transport._socket.fileno() == -1  # type: ignore[attr-defined]  # TCP
