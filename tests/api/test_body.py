"""Bodies push back, and a connection ends when it should; driven as an ASGI server would."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from quart import request

from api.app import Application
from api.body import HIGH_WATER
from api.problems import MAX_JSON_BODY
from tests.testing.api_world import CREDENTIAL, World

CHUNK = b"x" * 16_384
Message = dict[str, Any]


class Server:
    """The server's side of one request: sends what it is told, keeps what it gets."""

    def __init__(self, app: Application, path: str, length: int | None = None) -> None:
        headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {CREDENTIAL}".encode())]
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"\xff",
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
            "extensions": {},
        }
        self.app: Any = app
        self.taken = 0
        self.sent: list[Message] = []
        self.to_app, self._from_server = trio.open_memory_channel[Message](0)
        self.hold_last_send: trio.Event | None = None
        self.last_send_done = False

    async def receive(self) -> Message:
        message = await self._from_server.receive()
        self.taken += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            if self.hold_last_send is not None:
                await self.hold_last_send.wait()
            self.last_send_done = True

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.app, self.scope, self.receive, self.send)
            yield

    async def offer(self, chunks: int) -> None:
        """Send chunks until the application takes no more of them."""
        for _ in range(chunks):
            with trio.move_on_after(1) as scope:
                await self.to_app.send({"type": "http.request", "body": CHUNK, "more_body": True})
            if scope.cancelled_caught:
                return

    async def end(self, body: bytes = b"") -> None:
        await self.to_app.send({"type": "http.request", "body": body, "more_body": False})

    async def disconnect(self) -> None:
        await self.to_app.send({"type": "http.disconnect"})

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


async def test_a_handler_that_does_not_read_stops_the_client(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    go_on = trio.Event()

    @world.app.post("/count")
    async def count() -> str:
        await go_on.wait()
        return str(sum([len(chunk) async for chunk in request.body]))

    server = Server(world.app, "/count")
    total = 4 * HIGH_WATER // len(CHUNK)
    async with server.running():
        await server.offer(total)
        assert HIGH_WATER <= server.taken <= HIGH_WATER + len(CHUNK)
        go_on.set()
        await server.offer(total)
        await server.end()
    assert server.status == 200
    assert int(server.body) == server.taken > 4 * HIGH_WATER  # no limit but the patience of both


async def test_a_slow_reader_holds_little(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    most = 0

    @world.app.post("/slow")
    async def slow() -> str:
        nonlocal most
        async for chunk in request.body:
            most = max(most, len(chunk))
            await trio.sleep(0.1)
        return "read"

    server = Server(world.app, "/slow")
    async with server.running():
        await server.offer(100)
        await server.end()
    assert server.body == b"read"
    assert server.taken == 100 * len(CHUNK)
    assert most <= HIGH_WATER + len(CHUNK)


async def test_a_whole_body_without_a_length_is_bounded(world: World) -> None:
    server = Server(world.app, "/v1/sessions")
    async with server.running():
        await server.offer(MAX_JSON_BODY // len(CHUNK) + 1)
    assert server.status == 413


async def test_a_whole_body_is_refused_by_its_length_alone(world: World) -> None:
    server = Server(world.app, "/v1/sessions", length=MAX_JSON_BODY + 1)
    async with server.running():
        await trio.testing.wait_all_tasks_blocked()
    assert (server.status, server.taken) == (413, 0)


async def test_an_answer_ends_the_request_in_the_middle_of_the_upload(world: World) -> None:
    server = Server(world.app, "/nowhere", length=10**12)
    async with server.running():
        await trio.testing.wait_all_tasks_blocked()
    assert (server.status, server.taken) == (404, 0)


async def test_a_client_that_leaves_cancels_the_handler(world: World) -> None:
    entered, cancelled = trio.Event(), trio.Event()

    @world.app.post("/wait")
    async def wait() -> str:
        entered.set()
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            cancelled.set()
            raise

    server = Server(world.app, "/wait")
    async with server.running():
        await entered.wait()
        await server.disconnect()
    assert cancelled.is_set()
    assert server.sent == []


async def test_a_disconnect_during_the_last_send_leaves_the_server_alone(world: World) -> None:
    server = Server(world.app, "/nowhere")
    server.hold_last_send = trio.Event()
    async with server.running():
        await trio.testing.wait_all_tasks_blocked()
        await server.disconnect()
        await trio.testing.wait_all_tasks_blocked()
        assert not server.last_send_done
        server.hold_last_send.set()
    assert server.last_send_done


@pytest.mark.parametrize("length", [None, MAX_JSON_BODY])
async def test_the_largest_whole_body(world: World, length: int | None) -> None:
    server = Server(world.app, "/v1/sessions", length)
    server.scope["headers"].append((b"content-type", b"application/json"))  # type: ignore[attr-defined]  # a list
    body = b'{"profile": "default", "ttl_seconds": 1}'
    async with server.running():
        await server.offer(0)
        await server.end(body + b" " * (MAX_JSON_BODY - len(body)))
    assert server.status == 201


async def test_websockets_are_refused(world: World) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    app: Any = world.app
    scope = {"type": "websocket", "path": "/v1/sessions", "headers": [], "subprotocols": []}
    await app(scope, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]
