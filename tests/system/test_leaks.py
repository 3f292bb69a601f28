"""A thousand clients that vanish at every stage leave nothing behind in the server."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.testing.raw_trunk import HELLO, SECONDS, data_frame, frame
from tests.testing.server_process import ServerProcess, Usage, running_server

CYCLES = 1000
WARM_UP = 100
AT_ONCE = 8
SETTLE_SECONDS = 30.0
"""Idle worker threads go away by themselves after 10 seconds."""
MORE_MEMORY = 24 * 1024 * 1024


@pytest.fixture(scope="module")
def lone_server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server that nobody else uses, since what it holds is counted."""
    directory: Path = tmp_path_factory.mktemp("leaks")
    with running_server(directory, config="grace_seconds = 1\n") as server:
        yield server


def ws_message(payload: bytes, opcode: int = 2) -> bytes:
    """Return a client's WebSocket frame; the mask of zeros leaves the payload as it is."""
    length = len(payload)
    if length < 126:
        head = struct.pack(">BB", 0x80 | opcode, 0x80 | length)
    else:
        head = struct.pack(">BBH", 0x80 | opcode, 0x80 | 126, length)
    return head + bytes(4) + payload


class Vanishing:
    """Clients that go as far as a stage and are gone."""

    def __init__(self, server: ServerProcess, created: dict[str, Any]) -> None:
        self._server = server
        self._path = f"/v1/sessions/{created['session_id']}/pty?token={created['attach']['token']}"
        self.stages = [
            self.connect_only,
            self.half_a_head,
            self.request,
            self.refused_upgrade,
            self.no_hello,
            self.half_a_frame,
            self.hello,
            self.attach_and_go,
            self.attached,
            self.viewer_in_the_flood,
            self.input_under_way,
            self.starting,
            self.fog_and_go,
            self.fog_typing,
        ]

    @asynccontextmanager
    async def connection(self, *, reset: bool) -> AsyncIterator[trio.SocketStream]:
        stream = await trio.open_tcp_stream("127.0.0.1", self._server.port)
        assert isinstance(stream, trio.SocketStream)
        try:
            yield stream
        finally:
            if reset:
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await trio.aclose_forcefully(stream)

    async def run(self, number: int) -> None:
        """Be client `number`."""
        with trio.fail_after(SECONDS):
            async with self.connection(reset=bool(number & 1)) as stream:
                await self.stages[number % len(self.stages)](stream, number)

    def attach(self, number: int, **request: Any) -> bytes:
        fields = {
            "attachment": f"vanishing-{number:010d}",
            "kind": "exec",
            "tag": "flood",
            "takeover": True,
            "window": {1: 100_000},
        }
        return frame("ATTACH", fields | request, stream=1)

    async def upgrade(
        self, stream: trio.SocketStream, protocol: str = "trunk.1", path: str | None = None
    ) -> bytes:
        head = (
            f"GET {path or self._path} HTTP/1.1\r\nHost: {self._server.host}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            "Sec-WebSocket-Version: 13\r\n"
        )
        if protocol:
            head += f"Sec-WebSocket-Protocol: {protocol}\r\n"
        await stream.send_all(head.encode() + b"\r\n")
        return await self.read(stream, b"\r\n\r\n")

    async def read(self, stream: trio.SocketStream, *wanted: bytes) -> bytes:
        data = b""
        while not any(one in data for one in wanted):
            piece = await stream.receive_some()
            assert piece, f"ended before {wanted!r}: {data[-500:]!r}"
            data += piece
        return data

    async def connect_only(self, stream: trio.SocketStream, number: int) -> None:
        pass

    async def half_a_head(self, stream: trio.SocketStream, number: int) -> None:
        await stream.send_all(b"GET / HTTP/1.1\r\nHos")

    async def request(self, stream: trio.SocketStream, number: int) -> None:
        head = f"GET /v1/sessions HTTP/1.1\r\nHost: {self._server.host}\r\n"
        await stream.send_all(f"{head}Authorization: Bearer {self._server.token}\r\n\r\n".encode())

    async def refused_upgrade(self, stream: trio.SocketStream, number: int) -> None:
        assert b" 401 " in await self.upgrade(stream, path="/v1/sessions/none/pty?token=none")

    async def no_hello(self, stream: trio.SocketStream, number: int) -> None:
        assert b" 101 " in await self.upgrade(stream)

    async def half_a_frame(self, stream: trio.SocketStream, number: int) -> None:
        await self.upgrade(stream)
        await stream.send_all(ws_message(HELLO + self.attach(number))[:-3])

    async def hello(self, stream: trio.SocketStream, number: int) -> None:
        await self.upgrade(stream)
        await stream.send_all(ws_message(HELLO))

    async def attach_and_go(self, stream: trio.SocketStream, number: int) -> None:
        await self.upgrade(stream)
        await stream.send_all(ws_message(HELLO + self.attach(number)))

    async def attached(self, stream: trio.SocketStream, number: int) -> None:
        await self.attach_and_go(stream, number)
        await self.read(stream, b"stream")

    async def viewer_in_the_flood(self, stream: trio.SocketStream, number: int) -> None:
        await self.upgrade(stream)
        await stream.send_all(
            ws_message(
                HELLO + self.attach(number, mode="view", takeover=False, window={1: 1 << 40})
            )
        )
        await self.read(stream, b"flood\n" * 100)

    async def input_under_way(self, stream: trio.SocketStream, number: int) -> None:
        await self.upgrade(stream)
        # There is credit at once, because nothing is replayed.
        await stream.send_all(ws_message(HELLO + self.attach(number, replay="none")))
        await self.read(stream, b"credit")
        await stream.send_all(ws_message(data_frame(1, 0, 0, b"typed" * 1000)))

    async def starting(self, stream: trio.SocketStream, number: int) -> None:
        """Go away while a process is being started; it ends by itself."""
        await self.upgrade(stream)
        wish = self.attach(number, tag=f"start-{number}", start={"command": ["true"]})
        await stream.send_all(ws_message(HELLO + wish))

    async def fog_and_go(self, stream: trio.SocketStream, number: int) -> None:
        await self.upgrade(stream, "")

    async def fog_typing(self, stream: trio.SocketStream, number: int) -> None:
        await self.upgrade(stream, "")
        await stream.send_all(ws_message(b'{"type":"stdin","data_b64":"ZWNobyBoaQ0="}', 1))
        await self.read(stream, b"stdout", b"taken_over")  # the next one was faster

    async def run_many(self, first: int, last: int) -> None:
        """Be clients `first` to `last`, several at a time."""
        numbers = iter(range(first, last))

        async def some() -> None:
            for number in numbers:
                await self.run(number)

        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(some)


async def settled(server: ServerProcess, wanted: Usage | None = None) -> Usage:
    """Wait for the server to hold no more than `wanted`, or for it not to change any more."""
    usage = server.usage()
    with trio.move_on_after(SETTLE_SECONDS):
        quiet = 0
        while quiet < 20:
            await trio.sleep(0.05)  # another process: there is no event to wait for
            last, usage = usage, server.usage()
            quiet = quiet + 1 if usage.descriptors == last.descriptors else 0
            if wanted is not None:
                enough = usage.descriptors <= wanted.descriptors and usage.threads <= wanted.threads
                quiet = 20 if enough else 0
    return usage


@pytest.mark.slow
async def test_a_thousand_vanishing_clients(lone_server: ServerProcess) -> None:
    server = lone_server
    created = await trio.to_thread.run_sync(server.create_session)
    clients = Vanishing(server, created)
    # What they attach to: floods, and takes what it is sent.
    # (A command in the background reads nothing unless its input is named.)
    script = "exec 3<&0; cat <&3 > /dev/null & exec yes flood"
    with trio.fail_after(SECONDS):
        async with clients.connection(reset=False) as stream:
            await clients.upgrade(stream)
            wish = clients.attach(
                0, start={"command": ["sh", "-c", script], "overflow": "drop_oldest"}
            )
            await stream.send_all(ws_message(HELLO + wish))
            await clients.read(stream, b"flood\n")
    await clients.run_many(1, WARM_UP)
    before = await settled(server)
    began = trio.current_time()
    with trio.fail_after(120):
        await clients.run_many(WARM_UP, WARM_UP + CYCLES)
    took = trio.current_time() - began
    after = await settled(server, wanted=before)
    print(f"{CYCLES} cycles in {took:.1f} s: {before} -> {after}")
    assert after.descriptors <= before.descriptors
    assert after.threads <= before.threads
    assert after.rss <= before.rss + MORE_MEMORY
    with server.client() as client:
        path = f"/v1/sessions/{created['session_id']}/streams"
        answer = await trio.to_thread.run_sync(client.get, path)
    flood = next(s for s in answer.json()["streams"] if s["tag"] == "flood")
    assert not any(a["connected"] for a in flood["attachments"])
    await trio.to_thread.run_sync(server.delete_session, created["session_id"])
    ended = await settled(server, wanted=before)
    assert ended.descriptors < before.descriptors
