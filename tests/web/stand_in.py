"""A small server for the page: static files, the few API calls it makes, and an owner of trunk/1.

It is written from the spec alone (struct and msgpack, nothing of `relay`), so that a mistake the
two halves of the project share would show here.  Tests reach in from their own thread: `cut`,
`close`, `feed`, `refusal`, `screen`, `down`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Self

import trio
import trio_websocket

from tests.web.stand_in_owner import Link, Shell
from web import static_root

TOKEN = "stand-in-token"
LOGIN_CODE = "stand-in-code"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"} | {
    ".mjs": "text/javascript"
}


def content_security_policy(html: str) -> str:
    """Return the policy the real server sends: nothing inline but the import map."""
    inline = re.search(r'<script type="importmap">(.*?)</script>', html, re.DOTALL)
    assert inline is not None
    digest = base64.b64encode(hashlib.sha256(inline[1].encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'self' 'sha256-{digest}'; style-src 'self' "
        "'unsafe-inline'; connect-src 'self'; img-src 'self' data:; font-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


class StandIn:
    """The server, in a thread of its own; use it as a context manager."""

    def __init__(self) -> None:
        self.url = ""
        self.sessions: dict[str, str] = {}
        self.shells: dict[str, Shell] = {}
        self.links: set[Link] = set()
        self.attaches: list[dict[str, Any]] = []
        self.complaints: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.refusal = ""
        self.screen: tuple[bytes, int, int] | None = None  # what late joiners are shown
        self.down = False
        self._tickets: dict[str, tuple[str, str]] = {}
        self._codes = {LOGIN_CODE}
        self._streams: set[trio.SocketStream] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: trio.run(self._serve), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self.call(self._scope.cancel)
        self._thread.join(30)
        assert not self._thread.is_alive()

    # ------------------------------------------------------- for tests, from another thread

    def call(self, function: Callable[[], object]) -> None:
        """Run `function` in the server's thread."""
        trio.from_thread.run_sync(function, trio_token=self._token)

    def cut(self) -> None:
        """Break every WebSocket, as a bad network would."""

        def act() -> None:
            for stream in self._streams:
                stream.socket.shutdown(socket.SHUT_RDWR)

        self.call(act)

    def close(self, reason: str) -> None:
        """Close every attachment."""

        def act() -> None:
            for link in self.links:
                link.close(reason)

        self.call(act)

    def feed(self, session: str, data: bytes, *, drop: int = 0) -> None:
        """Let the shell write; then forget the `drop` oldest bytes."""

        def act() -> None:
            shell = self.shells[session]
            shell.output += data
            del shell.output[:drop]
            shell.dropped += drop
            self.pump(session)

        self.call(act)

    def pump(self, session: str) -> None:
        for link in self.links:
            if link.session == session:
                link.pump()

    # ------------------------------------------------------- serving

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            self._scope = nursery.cancel_scope
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            self.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
            self._ready.set()
            await trio.serve_listeners(self._connection, [listener], handler_nursery=nursery)

    async def _connection(self, stream: trio.SocketStream) -> None:
        # One request per connection; the head is only peeked at, for the WebSocket's own parser.
        head = b""
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            while b"\r\n\r\n" not in head:
                await trio.lowlevel.wait_readable(stream.socket)
                more = await stream.socket.recv(65536, socket.MSG_PEEK)
                if not more:
                    return
                head = more
            if b"upgrade: websocket" in head.lower():
                await self._websocket(stream)
            else:
                await self._http(stream)
        await trio.aclose_forcefully(stream)

    async def _http(self, stream: trio.SocketStream) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some()
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ")
        headers = {
            name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])
        }
        while len(body) < int(headers.get("content-length", 0)):
            body += await stream.receive_some()
        self.requests.append(f"{method} {path}")
        if self.down:
            return
        status, type_, content, more = self._answer(method, path, headers, body)
        answer = (
            f"HTTP/1.1 {status} X\r\nContent-Type: {type_}\r\nContent-Length: {len(content)}\r\n"
            f"Connection: close\r\nX-Content-Type-Options: nosniff\r\n{more}\r\n"
        )
        await stream.send_all(answer.encode() + content)

    def _answer(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, str, bytes, str]:
        if method == "GET" and (path == "/" or path.startswith("/t/")):
            html = (static_root() / "index.html").read_text()
            policy = f"Content-Security-Policy: {content_security_policy(html)}\r\n"
            return 200, "text/html; charset=utf-8", html.encode(), policy
        if path.startswith("/static/"):
            file = static_root() / path.removeprefix("/static/")
            return 200, f"{TYPES[file.suffix]}; charset=utf-8", file.read_bytes(), ""
        status, answer = self._api(method, path, headers, json.loads(body or b"null"))
        type_ = "application/json" if status < 400 else "application/problem+json"
        return status, type_, json.dumps(answer).encode(), ""

    def _api(
        self, method: str, path: str, headers: dict[str, str], body: Any
    ) -> tuple[int, dict[str, Any]]:
        if path == "/v1/login":
            if body["code"] not in self._codes:
                return 401, {"title": "Unauthorized", "detail": "This link was used already."}
            self._codes.discard(body["code"])
            return 200, {"token": TOKEN, "expires_at": "2099-01-01T00:00:00Z"}
        if headers.get("authorization") != f"Bearer {TOKEN}":
            return 401, {"title": "Unauthorized", "detail": "The token is not valid."}
        match method, path.split("/")[3:]:
            case "GET", []:
                return 200, {"sessions": [self._session(id_) for id_ in reversed(self.sessions)]}
            case "POST", []:
                id_ = f"{secrets.token_hex(4)}-0000-4000-8000-{secrets.token_hex(6)}"
                self.sessions[id_] = "running"
                return 201, {"session_id": id_}
            case "DELETE", [id_]:
                self.sessions[id_] = "terminated"
                for link in list(self.links):
                    if link.session == id_:
                        link.close("session_ended")
                return 200, self._session(id_)
            case "POST", [id_, "attach"]:
                if id_ not in self.sessions:
                    return 404, {"title": "Not Found", "detail": f"There is no session {id_}."}
                if self.sessions[id_] != "running":
                    return 409, {"title": "Conflict", "detail": "The session has ended."}
                ticket = secrets.token_urlsafe()
                self._tickets[ticket] = id_, body["mode"]
                return 201, {"token": ticket, "ws_url": "ws://elsewhere.invalid/", "expires_at": ""}
        return 404, {"title": "Not Found", "detail": path}

    def _session(self, id_: str) -> dict[str, Any]:
        times = {"created_at": "2026-01-01T00:00:00Z", "expires_at": None}
        return {"session_id": id_, "status": self.sessions[id_], "profile": "default"} | times

    async def _websocket(self, stream: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            request = await trio_websocket.wrap_server_stream(nursery, stream)
            ticket = request.proposed_subprotocols[1].removeprefix("trunk.ticket.")
            session, mode = self._tickets.pop(ticket)  # one use
            assert request.proposed_subprotocols[0] == "trunk.1"
            assert request.path == f"/v1/sessions/{session}/pty"
            if self.down:
                await request.reject(503)
                return
            socket_ = await request.accept(subprotocol="trunk.1")
            link = Link(self, session, mode)
            self.links.add(link)
            self._streams.add(stream)
            try:
                nursery.start_soon(partial(self._send, link, socket_))
                while True:
                    message = await socket_.get_message()
                    assert isinstance(message, bytes)
                    link.receive(message)
            except trio_websocket.ConnectionClosed:
                pass
            finally:
                self.links.discard(link)
                self._streams.discard(stream)
                nursery.cancel_scope.cancel()

    async def _send(self, link: Link, socket_: trio_websocket.WebSocketConnection) -> None:
        with contextlib.suppress(trio_websocket.ConnectionClosed):
            while True:
                await link.wake.wait()
                link.wake = trio.Event()
                out, link.out = bytes(link.out), bytearray()
                if out:
                    await socket_.send_message(out)


@contextlib.contextmanager
def running() -> Iterator[StandIn]:
    """Serve until the block ends."""
    with StandIn() as server:
        yield server
