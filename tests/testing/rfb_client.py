"""A minimal client of VNC servers, over anything that carries bytes (RFC 6143)."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable

VERSION = b"RFB 003.008\n"
DEPTH_BYTES = 4

KEY = struct.Struct(">BBxxI")
POINTER = struct.Struct(">BBHH")
RETURN = 0xFF0D


class RfbClient:
    """Speaks RFB 3.8 with security type None, and takes raw pixels only."""

    def __init__(
        self, receive: Callable[[], Awaitable[bytes]], send: Callable[[bytes], Awaitable[None]]
    ) -> None:
        self._receive = receive
        self.send = send
        self._buffer = bytearray()
        self.size = (0, 0)
        self.name = ""

    async def read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = await self._receive()
            assert data, "the VNC server has hung up"
            self._buffer += data
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    async def shake(self, *, shared: bool = True) -> None:
        assert await self.read(12) == VERSION
        await self.send(VERSION)
        (count,) = await self.read(1)
        assert 1 in await self.read(count)  # security type None
        await self.send(b"\x01")
        assert await self.read(4) == bytes(4)
        await self.send(bytes([shared]))
        width, height = struct.unpack(">HH", await self.read(4))
        self.size = (width, height)
        await self.read(16)
        (length,) = struct.unpack(">I", await self.read(4))
        self.name = (await self.read(length)).decode()

    async def screen(self) -> bytes:
        """Ask for all of the screen, raw, and return its pixels."""
        width, height = self.size
        await self.send(struct.pack(">BxHi", 2, 1, 0))
        await self.send(struct.pack(">BBHHHH", 3, 0, 0, 0, width, height))
        pixels = bytearray()
        while len(pixels) < width * height * DEPTH_BYTES:
            type_, rectangles = struct.unpack(">BxH", await self.read(4))
            assert type_ == 0
            for _ in range(rectangles):
                _, _, wide, high, encoding = struct.unpack(">HHHHi", await self.read(12))
                assert encoding == 0
                pixels += await self.read(wide * high * DEPTH_BYTES)
        return bytes(pixels)

    async def press(self, keysym: int) -> None:
        await self.send(KEY.pack(4, 1, keysym) + KEY.pack(4, 0, keysym))

    async def click(self, x: int, y: int) -> None:
        await self.send(b"".join(POINTER.pack(5, button, x, y) for button in (0, 1, 0)))
