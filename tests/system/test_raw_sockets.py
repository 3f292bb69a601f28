"""Plain WebSockets to ports of a session, on the real server."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio_websocket

from relay.websocket import Binary, CloseCode, WebSocket
from tests.testing.server_process import ServerProcess
from tests.testing.socket_servers import echo, flood, open_server, reset
from trunkline.sdk.websocket import HandshakeRefused, open_websocket

PLENTY = 64 * 1024 * 1024
"""Bytes: more than all buffers on the way hold."""


pytestmark = pytest.mark.timeout(90)


class Way:
    """Opens plain WebSockets to ports of one session."""

    def __init__(self, server: ServerProcess, session_id: str) -> None:
        self.server = server
        self.session_id = session_id

    def url(self, port: object, token: str | None = None, kind: str = "tcp") -> str:
        token = token or self.server.ticket(self.session_id, kinds=[kind])
        base = f"ws://{self.server.host}/v1/sessions/{self.session_id}"
        return f"{base}/tcp/{port}?token={token}"

    @asynccontextmanager
    async def connect(self, port: int | None) -> AsyncIterator[WebSocket]:
        """Connect with a client that reads only when it is told to."""
        websocket, _ = await open_websocket(self.url(port))
        try:
            yield websocket
        finally:
            await websocket.aclose()

    async def refused(self, url: str, subprotocols: tuple[str, ...] = ()) -> tuple[int, str]:
        with pytest.raises(HandshakeRefused) as caught:
            await open_websocket(url, subprotocols=subprotocols)
        return caught.value.status, str(caught.value)


@pytest.fixture
def way(server: ServerProcess, session_id: str) -> Way:
    return Way(server, session_id)


async def read(websocket: WebSocket, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        message = await websocket.receive(merge=True)
        assert isinstance(message, Binary), message
        got += message.data
    return bytes(got)


async def read_to_the_end(websocket: WebSocket) -> bytes:
    got = bytearray()
    while (message := await websocket.receive(merge=True)) is not None:
        assert isinstance(message, Binary), message
        got += message.data
    return bytes(got)


def close_of(websocket: WebSocket) -> tuple[int | None, str]:
    close = websocket.peer_close
    assert close is not None
    return close.code, close.reason


# ---------------------------------------------------------------- bytes


async def test_another_client_echoes_binary_and_text(way: Way) -> None:
    async with (
        open_server(echo) as target,
        trio_websocket.open_websocket_url(way.url(target.port)) as websocket,
    ):
        for message, expected in (
            (b"\x00\xff binary", b"\x00\xff binary"),
            ("tëxt", b"t\xc3\xabxt"),
        ):
            await websocket.send_message(message)
            assert await websocket.get_message() == expected


async def test_megabytes_go_both_ways(way: Way) -> None:
    data = hashlib.shake_128(b"seed").digest(20_000_000)
    async with (
        open_server(echo) as target,
        way.connect(target.port) as websocket,
        trio.open_nursery() as nursery,
    ):

        async def feed() -> None:
            for start in range(0, len(data), 70_000):
                await websocket.send_binary(data[start : start + 70_000])

        nursery.start_soon(feed)
        assert await read(websocket, len(data)) == data


# ---------------------------------------------------------------- ends


async def test_the_end_of_the_port_closes_it_after_the_last_byte(way: Way) -> None:
    data = bytes(3_000_000)

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(data)

    async with open_server(serve) as target, way.connect(target.port) as websocket:
        assert await read_to_the_end(websocket) == data
        assert close_of(websocket) == (CloseCode.NORMAL, "")


@asynccontextmanager
async def recording() -> AsyncIterator[tuple[int, trio.Event, bytearray, list[str]]]:
    """A server that notes what it got, and how that ended."""
    got = bytearray()
    ends: list[str] = []
    over = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        try:
            async for data in stream:
                got.extend(data)
            ends.append("in order")
        except trio.BrokenResourceError:
            ends.append("broken")
        over.set()

    async with open_server(serve) as target:
        assert target.port is not None
        yield target.port, over, got, ends


async def test_a_close_by_the_client_delivers_what_it_sent(way: Way) -> None:
    data = bytes(range(256)) * 8000
    async with recording() as (port, over, got, ends):
        async with way.connect(port) as websocket:
            await websocket.send_binary(data)
        await over.wait()
        assert got == data
        assert ends == ["in order"]


async def test_a_client_that_vanishes_resets_the_connection(way: Way) -> None:
    async with recording() as (port, over, _, ends):
        websocket, _ = await open_websocket(way.url(port))
        await websocket.send_binary(b"half a requ")
        await websocket._transport.aclose()  # without a close frame
        await over.wait()
        assert ends == ["broken"]


async def test_a_connection_that_breaks_is_told(way: Way) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"half of the ans")
        await stream.receive_some()
        reset(stream)

    async with open_server(serve) as target, way.connect(target.port) as websocket:
        assert await read(websocket, 15) == b"half of the ans"
        await websocket.send_binary(b"go on")
        assert await read_to_the_end(websocket) == b""
        assert close_of(websocket) == (CloseCode.INTERNAL_ERROR, "the connection broke")


async def test_the_end_of_the_session_closes_it(way: Way) -> None:
    other = way.server.create_session()["session_id"]
    async with (
        open_server(echo) as target,
        Way(way.server, other).connect(target.port) as websocket,
    ):
        await trio.to_thread.run_sync(way.server.delete_session, other)
        assert await read_to_the_end(websocket) == b""
        assert close_of(websocket) == (CloseCode.NORMAL, "session_ended")


async def test_revoking_closes_it(way: Way) -> None:
    async with recording() as (port, over, _, _), way.connect(port) as websocket:
        with way.server.client() as client:
            assert client.delete(f"/v1/sessions/{way.session_id}/attach").status_code == 200
        assert await read_to_the_end(websocket) == b""
        assert close_of(websocket) == (CloseCode.POLICY_VIOLATION, "revoked")
        await over.wait()


# ---------------------------------------------------------------- back-pressure


async def test_a_client_that_does_not_read_holds_the_port_up(way: Way) -> None:
    sent = 0
    stuck = trio.Event()

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal sent
        while sent < PLENTY:
            with trio.move_on_after(0.5) as scope:
                await stream.send_all(bytes(65536))
                sent += 65536
            if scope.cancelled_caught:
                stuck.set()
                return

    before = way.server.usage().rss
    async with open_server(serve) as target, way.connect(target.port) as websocket:
        await stuck.wait()
        assert sent < PLENTY
        assert way.server.usage().rss - before < 32 * 1024 * 1024
        # A ping that comes now is seen at once, and answered before all that waits.
        await websocket.ping(b"?")
        await trio.testing.wait_all_tasks_blocked(0.2)
        got = 0
        while websocket.statistics().pongs_received == 0:
            message = await websocket.receive(merge=True)
            assert isinstance(message, Binary)
            got += len(message.data)
        rest = len(await read_to_the_end(websocket))
        assert sent <= got + rest < sent + 65536
        assert rest > 256 * 1024


async def test_a_port_that_does_not_read_holds_the_client_up(way: Way) -> None:
    read_on = trio.Event()
    got = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal got
        await read_on.wait()
        async for data in stream:
            got += len(data)

    before = way.server.usage().rss
    async with open_server(serve) as target, way.connect(target.port) as websocket:
        await websocket.send_binary(bytes(200_000))
        await websocket.ping(b"?")  # there is room yet, so it is answered
        with trio.move_on_after(1):
            await websocket.receive()  # nothing but the pong comes
        assert websocket.statistics().pongs_received == 1
        sent = 200_000
        async with trio.open_nursery() as nursery:

            async def feed() -> None:
                nonlocal sent
                while sent < PLENTY:
                    await websocket.send_binary(bytes(65536))
                    sent += 65536

            nursery.start_soon(feed)
            seen = -1
            while seen != sent:
                seen = sent
                await trio.sleep(0.5)
            assert sent < PLENTY
            assert way.server.usage().rss - before < 32 * 1024 * 1024
            read_on.set()
        await websocket.aclose()
        assert sent == PLENTY + (200_000 - PLENTY) % 65536


async def test_a_stalled_client_does_not_slow_another(way: Way) -> None:
    async def measure(port: int | None) -> float:
        async with way.connect(port) as websocket:
            began = trio.current_time()
            await read(websocket, 60_000_000)
            return trio.current_time() - began

    async with open_server(flood) as target:
        alone = await measure(target.port)
        async with way.connect(target.port) as stalled:
            await read(stalled, 1000)
            beside = await measure(target.port)
    assert beside < 3 * alone + 0.5


# ---------------------------------------------------------------- who may


async def test_nobody_listens(way: Way) -> None:
    status, text = await way.refused(way.url(1))
    assert status == 502
    assert "port 1: connection refused" in text


@pytest.mark.parametrize("port", ["0", "65536", "x", "-1", "08%200", "1e3", "%D9%A3"])
async def test_no_port(way: Way, port: str) -> None:
    status, text = await way.refused(way.url(port))
    assert status == 400
    assert "1..65535" in text


async def test_other_kinds_of_ticket_do_not_help(way: Way) -> None:
    for kind in ("pty", "exec", "vnc"):
        status, text = await way.refused(way.url(1, kind=kind))
        assert (status, "does not cover control of tcp" in text) == (403, True), text
    view = way.server.ticket(way.session_id, kinds=["tcp"], mode="view")
    assert (await way.refused(way.url(1, view)))[0] == 403
    assert (await way.refused(way.url(1, "nonsense")))[0] == 401
    other = way.server.create_session()["session_id"]
    foreign = way.server.ticket(other, kinds=["tcp"])
    assert (await way.refused(way.url(1, foreign)))[0] == 403
    way.server.delete_session(other)


async def test_a_ticket_for_some_ports(way: Way) -> None:
    async with open_server(echo) as target, open_server(echo) as other:
        token = way.server.ticket(way.session_id, kinds=["tcp"], ports=[target.port], uses=2)
        status, text = await way.refused(way.url(other.port, token))
        assert status == 403
        assert f"does not cover tcp to port {other.port}; it covers {target.port}" in text
        websocket, _ = await open_websocket(way.url(target.port, token))
        await websocket.send_binary(b"x")
        assert await read(websocket, 1) == b"x"
        await websocket.aclose()


async def test_subprotocols(way: Way) -> None:
    async with open_server(echo) as target:
        url = way.url(target.port)
        status, text = await way.refused(url, ("base64",))
        assert (status, "offer binary or none" in text) == (400, True)
        websocket, _ = await open_websocket(url, subprotocols=("base64", "binary"))
        assert websocket.subprotocol == "binary"
        await websocket.aclose()
        ticket = way.server.ticket(way.session_id, kinds=["tcp"])
        url = way.url(target.port, "x").partition("?")[0]
        websocket, _ = await open_websocket(url, subprotocols=("binary", f"trunk.ticket.{ticket}"))
        assert websocket.subprotocol == "binary"
        await websocket.aclose()


async def test_nothing_is_left(way: Way) -> None:
    before = way.server.usage().descriptors
    async with open_server(echo) as target:
        for _ in range(5):
            async with way.connect(target.port) as websocket:
                await websocket.send_binary(b"x")
                await read(websocket, 1)
        # Another process tells nobody when it is done.
        while streams(way):
            await trio.sleep(0.05)
        while way.server.usage().descriptors > before:
            await trio.sleep(0.05)


def streams(way: Way) -> list[dict[str, Any]]:
    with way.server.client() as client:
        answer = client.get(f"/v1/sessions/{way.session_id}/streams")
    found: list[dict[str, Any]] = answer.json()["streams"]
    return found
