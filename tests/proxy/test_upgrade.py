"""From HTTP to WebSocket on one connection, with clients that are not ours."""

from __future__ import annotations

import pytest
import structlog
import trio
import trio.testing
import trio_websocket
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from proxy.config import FrontConfig
from proxy.connections import Phase
from relay.websocket.frames import Opcode, encode_frame
from tests.testing.front_world import World, open_front, websocket_handshake

MASK = b"\x05\x06\x07\x08"


async def in_thread(function: object, *arguments: object) -> object:
    with trio.fail_after(60):
        return await trio.to_thread.run_sync(function, *arguments)  # type: ignore[arg-type]  # checked by running it


async def test_against_the_websockets_client() -> None:
    def talk(url: str) -> None:
        offered = [Subprotocol("trunk.1"), Subprotocol("other")]
        with connect(f"{url}/ws/echo", subprotocols=offered, max_size=None) as ws:
            assert ws.subprotocol == "trunk.1"
            assert ws.response is not None
            assert "Sec-WebSocket-Extensions" not in ws.response.headers
            for message in ("grüße", "", b"", b"x", bytes(125), bytes(126), bytes(1 << 16)):
                ws.send(message)
                assert ws.recv(timeout=20) == message
            big = bytes(range(256)) * (1 << 14)
            ws.send([big[:100], big[100:1000], big[1000:]])
            assert ws.recv(timeout=20) == big
            ws.ping("hello").wait(20)

    async with open_front() as world:
        await in_thread(talk, world.ws_url)


async def test_against_trio_websocket() -> None:
    async with open_front() as world:
        url = f"{world.ws_url}/ws/echo"
        async with trio_websocket.open_websocket_url(url, subprotocols=["trunk.1"]) as ws:
            assert ws.subprotocol == "trunk.1"
            for message in ("grüße", b"x" * 70_000, b""):
                await ws.send_message(message)
                assert await ws.get_message() == message
            await ws.ping(b"hello")
        assert ws.closed is not None
        assert ws.closed.code == 1000


async def test_an_api_request_and_then_a_websocket_on_one_connection() -> None:
    async with open_front() as world:
        client = await world.connect()
        await client.get("/hello")
        assert await client.read_answer() == (200, b"hello")
        await client.send("POST /echo HTTP/1.1\nHost: {host}\nContent-Length: 2\n\nab")
        assert await client.read_answer() == (200, b"ab")
        await client.send(websocket_handshake())
        status, headers = await client.read_head()
        assert status == 101
        assert headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert "sec-websocket-protocol" not in headers
        await client.send(encode_frame(Opcode.TEXT, b"hello", mask=MASK))
        assert await client.read_exactly(7) == b"\x81\x05hello"
        assert world.front.statistics().open[Phase.WEBSOCKET] == 1


async def test_bytes_that_come_with_the_handshake_are_not_lost() -> None:
    async with open_front() as world:
        client = await world.connect()
        frames = b"".join(encode_frame(Opcode.TEXT, b"%d" % i, mask=MASK) for i in range(9))
        handshake = websocket_handshake().replace("\n", "\r\n")
        host = f"127.0.0.1:{world.port}"
        request = f"GET /hello HTTP/1.1\r\nHost: {host}\r\n\r\n{handshake}"
        await client.send(request.replace("{host}", host).encode() + frames)
        assert await client.read_answer() == (200, b"hello")
        assert (await client.read_head())[0] == 101
        expected = b"".join(b"\x81\x01%d" % i for i in range(9))
        assert await client.read_exactly(len(expected)) == expected


@pytest.mark.parametrize(
    ("text", "status", "detail"),
    [
        pytest.param(websocket_handshake("/ws/none"), 404, b"no WebSocket", id="no route"),
        pytest.param(websocket_handshake("/ws/reject"), 401, b"no ticket\n", id="rejected"),
        pytest.param(websocket_handshake("/ws/forget"), 500, b"failed", id="no answer"),
        pytest.param(websocket_handshake("/ws/fail"), 500, b"failed", id="handler fails"),
        pytest.param(
            websocket_handshake().replace("Version: 13", "Version: 8"), 426, b"13", id="version"
        ),
        pytest.param(
            websocket_handshake().replace("dGhlI", "xx"), 400, b"Sec-WebSocket-Key", id="key"
        ),
        pytest.param(
            websocket_handshake(extra="Sec-WebSocket-Protocol: a b\n"), 400, b"Protocol", id="token"
        ),
        pytest.param(
            websocket_handshake(extra="Content-Length: 1\n") + "x", 400, b"no body", id="body"
        ),
        pytest.param(
            websocket_handshake(extra="Origin: http://evil.example\n"), 403, b"evil", id="origin"
        ),
        pytest.param(websocket_handshake(extra="Origin: null\n"), 403, b"null", id="opaque origin"),
        pytest.param(
            websocket_handshake().replace("{host}", "evil.example"), 421, b"evil", id="host"
        ),
        pytest.param(
            websocket_handshake(extra="Origin: https://{host}\n"), 403, b"https", id="scheme"
        ),
    ],
)
async def test_refusals(text: str, status: int, detail: bytes) -> None:
    async with open_front() as world:
        client = await world.connect()
        await client.send(text)
        got, headers = await client.read_head()
        body = await client.read_exactly(int(headers["content-length"]))
        assert got == status
        assert detail in body
        if status == 401:
            assert headers["content-type"].startswith("text/plain")
        if status == 426:
            assert headers["sec-websocket-version"] == "13"
        assert await client.read_rest() == b""


async def test_the_own_origin_is_let_in() -> None:
    async with open_front() as world:
        client = await world.connect()
        await client.send(websocket_handshake(extra="Origin: http://{host}\n"))
        assert (await client.read_head())[0] == 101


@pytest.mark.parametrize(
    "change",
    [
        ("GET", "POST"),
        ("HTTP/1.1", "HTTP/1.0"),
        ("Upgrade: websocket", "Upgrade: h2c"),
        ("Connection: keep-alive, Upgrade", "Connection: keep-alive"),
    ],
)
async def test_what_is_no_websocket_request_goes_to_the_app(change: tuple[str, str]) -> None:
    async with open_front() as world:
        client = await world.connect()
        await client.send(websocket_handshake("/hello").replace(*change))
        assert await client.read_answer() == (200, b"hello")


async def test_a_handler_that_fails_after_accepting() -> None:
    def talk(url: str) -> int | None:
        with connect(f"{url}/ws/fail_late") as ws, pytest.raises(ConnectionClosed) as caught:
            ws.recv(timeout=20)
        return caught.value.rcvd.code if caught.value.rcvd else None

    with structlog.testing.capture_logs() as logs:
        async with open_front() as world:
            assert await in_thread(talk, world.ws_url) == 1011
    assert [e["event"] for e in logs if e["log_level"] == "error"] == ["a WebSocket handler failed"]


async def test_a_handler_that_returns_closes_normally() -> None:
    def talk(url: str) -> int | None:
        with connect(f"{url}/ws/brief") as ws, pytest.raises(ConnectionClosed) as caught:
            ws.recv(timeout=20)
        return caught.value.rcvd.code if caught.value.rcvd else None

    async with open_front() as world:
        assert await in_thread(talk, world.ws_url) == 1000


async def test_the_websockets_client_sees_a_refusal() -> None:
    def talk(url: str) -> tuple[int, bytes]:
        with pytest.raises(InvalidStatus) as caught, connect(f"{url}/ws/reject"):
            pass
        return caught.value.response.status_code, bytes(caught.value.response.body)

    async with open_front() as world:
        assert await in_thread(talk, world.ws_url) == (401, b"no ticket\n")


async def test_what_the_handler_sees() -> None:
    seen: dict[str, object] = {}

    async def look(request: object) -> None:
        seen.update(vars(request))
        with pytest.raises(ValueError, match="did not offer"):
            await request.accept("never")  # type: ignore[attr-defined]  # a WebSocketRequest
        ws = await request.accept("b")  # type: ignore[attr-defined]  # a WebSocketRequest
        with pytest.raises(RuntimeError, match="before"):
            await request.reject(400, "late")  # type: ignore[attr-defined]  # a WebSocketRequest
        await ws.close()

    async with open_front() as world:
        world.routes.handlers["/ws/a é"] = look
        client = await world.connect()
        extra = "Sec-WebSocket-Protocol: a\nSec-WebSocket-Protocol: b, c\n"
        await client.send(websocket_handshake("/ws/a%20%C3%A9?token=t%2Bt&x=&x=2&y", extra))
        status, headers = await client.read_head()
        assert (status, headers["sec-websocket-protocol"]) == (101, "b")
        assert seen["path"] == "/ws/a é"
        assert seen["query"] == {"token": ("t+t",), "x": ("", "2"), "y": ("",)}
        assert seen["subprotocols"] == ("a", "b", "c")
        assert seen["client"] == "{}:{}".format(*client.stream.socket.getsockname())
        # The answer to the close, then the end.
        await client.send(encode_frame(Opcode.CLOSE, b"\x03\xe8", mask=MASK))
        assert (await client.read_rest())[:1] == b"\x88"


async def test_accepted_websockets_leave_the_connection_limit() -> None:
    async with open_front(config=FrontConfig(max_connections=1, grace=1)) as world:
        for _ in range(3):
            client = await world.connect()
            await client.send(websocket_handshake())
            assert (await client.read_head())[0] == 101
        await _hello(world)


async def _hello(world: World) -> None:
    client = await world.connect()
    await client.get("/hello")
    assert await client.read_answer() == (200, b"hello")
