"""A WebSocket as a carrier."""

from __future__ import annotations

import pytest
import trio

from relay.carrier import Buffer
from relay.protocol.reasons import CloseReason
from relay.websocket import Close, WebSocketCarrier
from relay.websocket.carrier import CLOSE_CODES
from tests.testing.websocket_pair import websocket_pair


async def send_all(carrier: WebSocketCarrier, units: list[list[Buffer]]) -> None:
    for unit in units:
        await carrier.send(unit)


async def receive_exactly(carrier: WebSocketCarrier, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = await carrier.receive()
        assert piece
        data += piece
    return data


async def test_a_byte_pipe_each_way() -> None:
    async with websocket_pair() as ends, trio.open_nursery() as nursery:
        client, server = map(WebSocketCarrier, ends)
        for sender, receiver in ((client, server), (server, client)):
            units: list[list[Buffer]] = [
                [b"ab", b""],
                [],
                [memoryview(b"c" * 300_000), b"d"],
                [b"e"] * 3000,
            ]

            nursery.start_soon(send_all, sender, units)
            whole = b"".join(b"".join(unit) for unit in units)
            assert await receive_exactly(receiver, len(whole)) == whole
            assert sender.statistics().bytes_sent == len(whole)
            assert receiver.statistics().bytes_received == len(whole)


async def test_empty_messages_are_not_the_end() -> None:
    async with websocket_pair() as (client, server):
        for _ in range(600):
            await client.send_binary(b"")
        await client.send_binary(b"x")
        assert await WebSocketCarrier(server).receive() == b"x"


async def test_text_is_an_error() -> None:
    async with websocket_pair() as (client, server), trio.open_nursery() as nursery:
        await client.send_text("hello")

        async def listen() -> None:
            assert await client.receive() is None
            await client.close()

        nursery.start_soon(listen)
        with pytest.raises(trio.BrokenResourceError, match="text message"):
            await WebSocketCarrier(server).receive()
    assert client.peer_close is not None
    assert client.peer_close.code == 1003


@pytest.mark.parametrize("reason", [None, *CloseReason])
async def test_the_reason_reaches_the_peer(reason: CloseReason | None) -> None:
    async with websocket_pair() as ends, trio.open_nursery() as nursery:
        client, server = map(WebSocketCarrier, ends)
        nursery.start_soon(server.aclose, reason)
        assert await client.receive() == b""
        expected = Close(1000, "") if reason is None else Close(CLOSE_CODES[reason], reason.value)
        assert client.websocket.peer_close == expected
        await client.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await client.send([b"late"])


def test_every_reason_has_a_code() -> None:
    assert set(CLOSE_CODES) == set(CloseReason)
