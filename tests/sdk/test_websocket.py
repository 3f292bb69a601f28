"""The client's opening handshake, against our front, against another server, and against liars."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
import trio_websocket

from proxy.tls import server_context
from relay.websocket import Binary, Text
from relay.websocket.handshake import accept_value
from tests.testing.certificates import Authority
from tests.testing.front_world import collect, open_front
from trunkline.sdk.websocket import HandshakeError, HandshakeRefused, open_websocket


async def test_against_our_front() -> None:
    async with open_front() as world:
        websocket, chosen = await open_websocket(
            f"{world.ws_url}/ws/echo?token=t", subprotocols=["trunk.1", "trunk.ticket.x-y.z"]
        )
        assert chosen == websocket.subprotocol == "trunk.1"
        assert websocket.peer == f"127.0.0.1:{world.port}"
        await websocket.send_text("hello")
        assert await websocket.receive() == Text("hello")
        big = bytes(range(256)) * 4000
        async with trio.open_nursery() as nursery:
            nursery.start_soon(websocket.send_binary, big)
            assert await collect(websocket) == big
        await websocket.close()


async def test_against_trio_websocket() -> None:
    async def handle(request: trio_websocket.WebSocketRequest) -> None:
        assert dict(request.headers)[b"x-extra"] == b"1"
        server = await request.accept(subprotocol="b")
        while True:
            try:
                await server.send_message(await server.get_message())
            except trio_websocket.ConnectionClosed:
                return

    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            partial(trio_websocket.serve_websocket, handle, "127.0.0.1", 0, ssl_context=None)
        )
        websocket, chosen = await open_websocket(
            f"ws://127.0.0.1:{server.port}/x", subprotocols=["a", "b"], headers={"X-Extra": "1"}
        )
        assert chosen == "b"
        for size in (0, 125, 70_000):
            await websocket.send_binary(bytes(size))
            assert await collect(websocket) == bytes(size)
        await websocket.send_text("grüße")
        assert await websocket.receive() == Text("grüße")
        await websocket.close()
        nursery.cancel_scope.cancel()


async def test_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = server_context(authority.certificate, authority.key)
    async with open_front(ssl_context=context) as world:
        websocket, _ = await open_websocket(
            f"{world.ws_url}/ws/echo", ssl_context=authority.client_context()
        )
        await websocket.send_binary(b"hello")
        assert await websocket.receive() == Binary(b"hello", True)
        await websocket.close()
        with pytest.raises(trio.BrokenResourceError):
            await open_websocket(f"{world.ws_url}/ws/echo")  # An authority nobody trusts.


async def test_a_refusal() -> None:
    async with open_front() as world:
        with pytest.raises(HandshakeRefused, match="401 Unauthorized: no ticket") as caught:
            await open_websocket(f"{world.ws_url}/ws/reject")
        assert caught.value.status == 401
        assert caught.value.reason == "Unauthorized"
        assert caught.value.body == b"no ticket\n"
        with pytest.raises(HandshakeRefused, match="404"):
            await open_websocket(f"{world.ws_url}/ws/none")


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("http://127.0.0.1/", "ws://"),
        ("ws:///x", "no host"),
        ("ws://user@127.0.0.1/", "neither user"),
        ("ws://127.0.0.1/#x", "fragment"),
        ("ws://127.0.0.1:x/", "[Pp]ort"),
    ],
)
async def test_bad_urls(url: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        await open_websocket(url)


async def test_bad_subprotocols_and_headers() -> None:
    with pytest.raises(ValueError, match="subprotocol"):
        await open_websocket("ws://127.0.0.1/", subprotocols=["a b"])
    async with open_front() as world:
        with pytest.raises(ValueError, match="cannot be sent"):
            await open_websocket(f"{world.ws_url}/ws/echo", headers={"X": "a\r\nb"})


async def test_nobody_listens() -> None:
    with pytest.raises(OSError, match="connect"):
        await open_websocket("ws://127.0.0.1:1/")


@asynccontextmanager
async def liar(answer: Callable[[str], bytes], *, hold: bool = False) -> AsyncIterator[str]:
    """A server that answers any request with `answer(key)`, and yields its URL."""

    async def serve(stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some()
        key = head.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0].decode()
        await stream.send_all(answer(key))
        if hold:
            await trio.sleep_forever()
        await stream.send_eof()
        while await stream.receive_some():
            pass

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/"
        nursery.cancel_scope.cancel()


def switching(key: str, **changes: str) -> bytes:
    fields = {
        "Upgrade": "websocket",
        "Connection": "upgrade",
        "Sec-WebSocket-Accept": accept_value(key),
    } | {name.replace("_", "-"): value for name, value in changes.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    return f"HTTP/1.1 101 Switching Protocols\r\n{lines}\r\n".encode()


async def test_bytes_that_come_with_the_answer_are_not_lost() -> None:
    async with liar(
        lambda key: b"HTTP/1.1 103 Early Hints\r\n\r\n" + switching(key) + b"\x81\x02hi\x82\x01x",
        hold=True,
    ) as url:
        websocket, chosen = await open_websocket(url)
        assert chosen is None
        assert await websocket.receive() == Text("hi")
        assert await websocket.receive() == Binary(b"x", True)
        with trio.move_on_after(0):
            await websocket.close()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"Sec_WebSocket_Accept": "AAAA"}, "Accept"),
        ({"Sec_WebSocket_Accept": ""}, "Accept"),
        ({"Upgrade": "h2c"}, "switch"),
        ({"Connection": "close"}, "upgrade"),
        ({"Sec_WebSocket_Extensions": "permessage-deflate"}, "extension"),
        ({"Sec_WebSocket_Protocol": "other"}, "subprotocol"),
    ],
)
async def test_lies(changes: dict[str, str], match: str) -> None:
    async with liar(lambda key: switching(key, **changes)) as url:
        with pytest.raises(HandshakeError, match=match):
            await open_websocket(url, subprotocols=["trunk.1"])


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH\r\n\r\n", b"\x00\x01\x02", b"HTTP/1.1 101", b"x" * 100_000]
)
async def test_servers_that_speak_something_else(answer: bytes) -> None:
    async with liar(lambda _key: answer) as url:
        with pytest.raises(HandshakeError, match="does not speak HTTP"):
            await open_websocket(url)


async def test_a_refusal_whose_body_never_ends() -> None:
    head = b"HTTP/1.1 502 \r\nContent-Length: 999999\r\n\r\n"
    async with liar(lambda _key: head + b"x" * 200_000) as url:
        with pytest.raises(HandshakeRefused) as caught:
            await open_websocket(url)
        assert (caught.value.status, caught.value.reason) == (502, "Bad Gateway")
        assert len(caught.value.body) == 65536
    async with liar(lambda _key: head + b"cut") as url:
        with pytest.raises(HandshakeRefused) as caught:
            await open_websocket(url)
        assert caught.value.body == b"cut"


async def test_a_silent_server(autojump_clock: trio.testing.MockClock) -> None:
    async with liar(lambda _key: b"", hold=True) as url:
        began = trio.current_time()
        with pytest.raises(trio.TooSlowError):
            await open_websocket(url, timeout=7)
        assert trio.current_time() - began == pytest.approx(7)
