"""A front with a small app and a few WebSockets, for tests; as a program, a server of its own.

``python -m tests.testing.front_world [--cert FILE --key FILE] [--grace SECONDS]`` prints one JSON line
with the port when it serves, stops on SIGTERM, and prints ``bye`` at its end.
"""

from __future__ import annotations

import argparse
import json
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio

from proxy.asgi import ASGIApp, Message, Receive, Scope, Send
from proxy.config import FrontConfig
from proxy.front import Front, serve
from proxy.hosts import HostPolicy
from proxy.listener import bound_port, open_listeners
from proxy.tls import server_context
from proxy.upgrade import DataPlane, WebSocketRequest
from relay.websocket import Binary, CloseCode, WebSocket
from relay.websocket.frames import Text


async def respond(
    send: Send,
    status: int = 200,
    body: bytes = b"",
    headers: list[tuple[bytes, bytes]] | None = None,
) -> None:
    fields = [(b"content-length", b"%d" % len(body)), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def read_all(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client left")
        body += message["body"]
        if not message["more_body"]:
            return bytes(body)


@dataclass
class App:
    """An ASGI app whose paths say what they do; it records what happened to it."""

    events: list[str] = field(default_factory=list)
    scopes: list[Scope] = field(default_factory=list)
    reached: trio.Event = field(default_factory=trio.Event)
    go_on: trio.Event = field(default_factory=trio.Event)
    taken: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        self.scopes.append(scope)
        name = scope["path"].strip("/").split("/")[0]
        await getattr(self, f"do_{name}")(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            stage = (await receive())["type"]
            self.events.append(stage)
            scope["state"]["shared"] = "yes"
            await send({"type": f"{stage}.complete"})
            if stage == "lifespan.shutdown":
                return

    async def do_hello(self, scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, body=b"hello")

    async def do_echo(self, scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, body=await read_all(receive))

    async def do_stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"one,", b"two,", b"three"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    async def do_endless(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
            self.taken += 65536
            self.reached.set()

    async def do_early(self, scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 403, b"no")

    async def do_empty(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def do_fail(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("a bug in the app")

    async def do_fail_late(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        raise ValueError("a bug in the app")

    async def do_silent(self, scope: Scope, receive: Receive, send: Send) -> None:
        return

    async def do_too_much(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"three"})

    async def do_out_of_order(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.body", "body": b"no head"})

    async def do_take_one(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one piece of the body, and the rest only when told to."""
        self.taken += len((await receive())["body"])
        self.reached.set()
        await self.go_on.wait()
        while (message := await receive())["more_body"]:
            self.taken += len(message["body"])
        await respond(send, body=b"%d" % self.taken)

    async def do_wait_gone(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait for the client to leave; what Quart does next to every request."""
        await read_all(receive)
        self.reached.set()
        self.events.append((await receive())["type"])

    async def do_watch(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer from one task while another waits in `receive`, and end when both have."""

        async def watch() -> None:
            while True:
                message = await receive()
                self.events.append(message["type"])
                if message["type"] == "http.disconnect":
                    return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await trio.testing.wait_all_tasks_blocked()
            await respond(send, body=b"watched")
        self.events.append("done")

    async def do_hold(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.reached.set()
        await self.go_on.wait()
        await respond(send, body=b"held")


async def echo(request: WebSocketRequest) -> None:
    """Echo messages; the client chooses the subprotocol by offering one."""
    websocket = await request.accept(request.subprotocols[0] if request.subprotocols else None)
    parts: list[bytes] = []
    while (message := await websocket.receive()) is not None:
        match message:
            case Text(text):
                await websocket.send_text(text)
            case Binary(data, final):
                parts.append(bytes(data))
                if final:
                    await websocket.send_binary(parts)
                    parts = []


async def flood(request: WebSocketRequest) -> None:
    websocket = await request.accept()
    while True:
        await websocket.send_binary(bytes(65536))


async def patient(request: WebSocketRequest) -> None:
    """Say good-bye when the server is going away."""
    websocket = await request.accept()
    await request.draining.wait()
    await websocket.send_text("draining")
    await websocket.close(CloseCode.GOING_AWAY, "draining")


async def rejecting(request: WebSocketRequest) -> None:
    await request.reject(401, "no ticket")


async def failing(request: WebSocketRequest) -> None:
    raise ValueError("a bug in the handler")


async def failing_late(request: WebSocketRequest) -> None:
    await request.accept()
    raise ValueError("a bug in the handler")


async def forgetful(request: WebSocketRequest) -> None:
    return


async def brief(request: WebSocketRequest) -> None:
    await request.accept()


@dataclass
class TestRoutes:
    __test__ = False
    handlers: dict[str, DataPlane] = field(
        default_factory=lambda: {
            "/ws/echo": echo,
            "/ws/flood": flood,
            "/ws/patient": patient,
            "/ws/reject": rejecting,
            "/ws/fail": failing,
            "/ws/fail_late": failing_late,
            "/ws/forget": forgetful,
            "/ws/brief": brief,
        }
    )

    def match(self, path: str) -> DataPlane | None:
        return self.handlers.get(path)


@dataclass
class World:
    front: Front
    app: Any
    routes: TestRoutes
    port: int
    scheme: str
    clients: list[Client] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"{'wss' if self.scheme == 'https' else 'ws'}://127.0.0.1:{self.port}"

    async def connect(self) -> Client:
        """Open a raw connection, which is closed at the end."""
        client = Client(await trio.open_tcp_stream("127.0.0.1", self.port), self.port)
        self.clients.append(client)
        return client


@dataclass
class Client:
    """A raw HTTP/1.1 client: bytes out, bytes in."""

    stream: trio.SocketStream
    port: int

    async def send(self, text: str | bytes) -> None:
        """Send `text`; its newlines become CR LF and ``{host}`` the server's name."""
        if isinstance(text, str):
            host = f"127.0.0.1:{self.port}"
            text = text.replace("{host}", host).replace("\n", "\r\n").encode("latin-1")
        await self.stream.send_all(text)

    async def get(self, path: str, extra: str = "") -> None:
        await self.send(f"GET {path} HTTP/1.1\nHost: {{host}}\n{extra}\n")

    async def read_until(self, mark: bytes) -> bytes:
        data = b""
        with trio.fail_after(20):
            while not data.endswith(mark):
                piece = await self.stream.receive_some(1)
                if not piece:
                    raise AssertionError(f"the server ended the connection after {data!r}")
                data += piece
        return data

    async def read_head(self) -> tuple[int, dict[str, str]]:
        head = (await self.read_until(b"\r\n\r\n")).decode()
        first, *lines = head.splitlines()[:-1]
        return int(first.split()[1]), {
            name.lower(): value for name, value in (line.split(": ", 1) for line in lines)
        }

    async def read_exactly(self, count: int) -> bytes:
        data = b""
        with trio.fail_after(20):
            while len(data) < count:
                piece = await self.stream.receive_some(count - len(data))
                if not piece:
                    raise AssertionError(f"the server ended the connection after {data!r}")
                data += piece
        return data

    async def read_answer(self) -> tuple[int, bytes]:
        """Read a response that has a Content-Length."""
        status, headers = await self.read_head()
        return status, await self.read_exactly(int(headers.get("content-length", 0)))

    async def read_rest(self) -> bytes:
        """Read until the server ends the connection."""
        data = b""
        with trio.fail_after(20):
            while piece := await self.stream.receive_some():
                data += piece
        return data


def routes_for(port: int, *, tls: bool) -> HostPolicy:
    return HostPolicy.loopback(port, scheme="https" if tls else "http")


@asynccontextmanager
async def open_front(
    app: ASGIApp | None = None,
    *,
    config: FrontConfig | None = None,
    ssl_context: ssl.SSLContext | None = None,
    routes: TestRoutes | None = None,
) -> AsyncIterator[World]:
    """Run a front on a free port; at the end it must stop by itself, and hold nothing."""
    app = App() if app is None else app
    routes = routes or TestRoutes()
    listeners = await open_listeners("127.0.0.1", 0)
    port = bound_port(listeners)
    tls = ssl_context is not None
    async with trio.open_nursery() as nursery:
        front: Front = await nursery.start(
            partial(
                serve,
                listeners,
                app,
                routes,
                routes_for(port, tls=tls),
                config=config or FrontConfig(grace=1.0),
                ssl_context=ssl_context,
            )
        )
        world = World(front, app, routes, port, "https" if tls else "http")
        try:
            yield world
        finally:
            for client in world.clients:
                await trio.aclose_forcefully(client.stream)
        front.stop()
    assert not any(front.statistics().open.values())


def websocket_handshake(path: str = "/ws/echo", extra: str = "") -> str:
    return (
        f"GET {path} HTTP/1.1\nHost: {{host}}\nUpgrade: websocket\nConnection: keep-alive, Upgrade\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\n{extra}\n"
    )


async def collect(websocket: WebSocket) -> bytes:
    """Read one binary message."""
    data = b""
    while True:
        message = await websocket.receive()
        assert isinstance(message, Binary)
        data += message.data
        if message.final:
            return data


async def _main(arguments: argparse.Namespace) -> None:
    context = server_context(arguments.cert, arguments.key) if arguments.cert else None
    config = FrontConfig(grace=arguments.grace)
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with open_front(config=config, ssl_context=context) as world:
            print(json.dumps({"port": world.port}), flush=True)
            async for _ in signals:
                break
    print("bye", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--cert", type=Path)
    parser.add_argument("--key", type=Path)
    parser.add_argument("--grace", type=float, default=1.0)
    trio.run(_main, parser.parse_args())

__all__ = ["App", "Client", "Message", "TestRoutes", "World", "open_front"]
