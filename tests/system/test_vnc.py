"""A real desktop through the plain WebSocket: the handshake of RFB, by hand (RFC 6143 §7)."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio

from relay.websocket import Binary, CloseCode, WebSocket
from tests.testing.server_process import ServerProcess, running_server
from trunkline.sdk.client import open_client
from trunkline.sdk.websocket import HandshakeRefused, open_websocket

XVNC = shutil.which("Xtigervnc")
WIDTH, HEIGHT = 320, 200
DEPTH_BYTES = 4

pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.skipif(XVNC is None, reason="needs Xtigervnc (tigervnc-standalone-server)"),
]


@contextmanager
def desktop(directory: Path, *options: str) -> Iterator[None]:
    """Run an X server that is its own VNC server."""
    assert XVNC is not None
    reading, writing = subprocess.PIPE, subprocess.DEVNULL
    process = subprocess.Popen(
        [
            *(XVNC, "-displayfd", "1", "-geometry", f"{WIDTH}x{HEIGHT}", "-depth", "24"),
            *("-SecurityTypes", "None", "-nolisten", "tcp", "-AlwaysShared", *options),
        ],
        stdout=reading,
        stderr=writing,
        cwd=directory,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline().strip().isdecimal(), "no X server"
        yield
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


@pytest.fixture(scope="module")
def socket_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("desktop")
    path = directory / "vnc.sock"
    with desktop(directory, "-rfbunixpath", str(path), "-rfbport", "-1"):
        yield str(path)


@pytest.fixture(scope="module")
def desk(
    socket_path: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServerProcess, str]]:
    """A server whose profile knows where the desktop is, and a session of it."""
    config = f'[profiles.default]\nvnc = "{socket_path}"\nports = ["{socket_path}", "1024-65535"]\n'
    with running_server(tmp_path_factory.mktemp("vnc"), config=config) as server:
        session_id = server.create_session()["session_id"]
        yield server, session_id
        server.delete_session(session_id)
        server.check_log()


def url(desk: tuple[ServerProcess, str], query: str = "", kind: str = "vnc") -> str:
    server, session_id = desk
    token = server.ticket(session_id, kinds=[kind])
    return f"ws://{server.host}/v1/sessions/{session_id}/vnc?{query}&token={token}"


class Viewer:
    """A minimal RFB client."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._buffer = bytearray()
        self.name = ""

    async def read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            message = await self._websocket.receive(merge=True)
            assert isinstance(message, Binary), message
            self._buffer += message.data
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def shake(self) -> None:
        version = await self.read(12)
        assert version == b"RFB 003.008\n"
        await self._websocket.send_binary(version)
        (count,) = await self.read(1)
        assert 1 in await self.read(count)  # security type None
        await self._websocket.send_binary(b"\x01")
        assert await self.read(4) == bytes(4)
        await self._websocket.send_binary(b"\x01")  # shared
        width, height = struct.unpack(">HH", await self.read(4))
        assert (width, height) == (WIDTH, HEIGHT)
        await self.read(16)
        (length,) = struct.unpack(">I", await self.read(4))
        self.name = (await self.read(length)).decode()

    async def screen(self) -> bytes:
        """Ask for all of the screen, raw, and return its pixels."""
        await self._websocket.send_binary(struct.pack(">BxHi", 2, 1, 0))
        await self._websocket.send_binary(struct.pack(">BBHHHH", 3, 0, 0, 0, WIDTH, HEIGHT))
        pixels = bytearray()
        while len(pixels) < WIDTH * HEIGHT * DEPTH_BYTES:
            type_, rectangles = struct.unpack(">BxH", await self.read(4))
            assert type_ == 0
            for _ in range(rectangles):
                _, _, width, height, encoding = struct.unpack(">HHHHi", await self.read(12))
                assert encoding == 0
                pixels += await self.read(width * height * DEPTH_BYTES)
        return bytes(pixels)


@asynccontextmanager
async def viewer(address: str) -> AsyncIterator[Viewer]:
    websocket, chosen = await open_websocket(address, subprotocols=("binary",))
    assert chosen == "binary"
    try:
        yield Viewer(websocket)
    finally:
        await websocket.aclose()


async def test_the_desktop_of_the_profile(desk: tuple[ServerProcess, str]) -> None:
    async with viewer(url(desk)) as one:
        await one.shake()
        assert one.name
        assert len(await one.screen()) == WIDTH * HEIGHT * DEPTH_BYTES


async def test_many_viewers_and_one_who_does_not_read(desk: tuple[ServerProcess, str]) -> None:
    async with viewer(url(desk)) as stalled:
        await stalled.shake()
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                async with viewer(url(desk)) as one:
                    await one.shake()
                    for _ in range(5):
                        await one.screen()

            for _ in range(5):
                nursery.start_soon(watch)


async def test_a_desktop_on_a_port(desk: tuple[ServerProcess, str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(HandshakeRefused) as caught:
        await open_websocket(url(desk, f"port={port}"))
    assert caught.value.status == 502
    with desktop(tmp_path, "-rfbport", str(port), "-localhost"):
        async with viewer(url(desk, f"port={port}")) as one:
            await one.shake()


@pytest.mark.parametrize(
    ("query", "kind", "status"),
    [
        ("path=/var/run/docker.sock", "vnc", 403),
        ("port=22", "vnc", 403),
        ("", "tcp", 403),
        ("port=0", "vnc", 400),
        ("port=x", "vnc", 400),
        ("path=", "vnc", 400),
        ("path=%00", "vnc", 400),
        ("port=5900&port=5901", "vnc", 400),
        ("port=5900&path=/x", "vnc", 400),
    ],
)
async def test_where_there_is_no_desktop(
    desk: tuple[ServerProcess, str], query: str, kind: str, status: int
) -> None:
    with pytest.raises(HandshakeRefused) as caught:
        await open_websocket(url(desk, query, kind))
    assert caught.value.status == status, str(caught.value)


async def test_the_desktop_over_trunk_1(desk: tuple[ServerProcess, str], socket_path: str) -> None:
    server, session_id = desk
    async with (
        open_client(server.url, server.token) as client,
        client.session(session_id).connect() as connection,
    ):
        stream = await connection.open_vnc(socket_path)
        assert await stream.receive_some() == b"RFB 003.008\n"
        await stream.send_all(b"RFB 003.008\n")
        assert await stream.receive_some() == b"\x01\x01"
        await stream.aclose()


async def test_the_end_of_the_session_ends_the_view(desk: tuple[ServerProcess, str]) -> None:
    server, _ = desk
    other = server.create_session()["session_id"]
    address = url((server, other))
    async with viewer(address) as one:
        await one.shake()
        await trio.to_thread.run_sync(server.delete_session, other)
        assert await one._websocket.receive() is None
        close = one._websocket.peer_close
        assert close is not None
        assert (close.code, close.reason) == (CloseCode.NORMAL, "session_ended")
