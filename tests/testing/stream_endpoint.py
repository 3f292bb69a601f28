"""An endpoint over a stream of `trio.testing`, in memory."""

from __future__ import annotations

from typing import Any

import trio

from relay.carrier import Buffer
from relay.endpoint import Channel, Endpoint, ExitStatus, TerminalSize


class StreamEndpoint(Endpoint):
    """A connection whose other end the test holds.  Closes on any signal."""

    def __init__(self, stream: trio.StapledStream[Any, Any]) -> None:
        self.stream = stream
        self.signals: list[str] = []
        self._open = {Channel.INPUT, Channel.OUTPUT}
        self._broken = False
        self._closing = False
        self._over = trio.Event()

    @property
    def pid(self) -> int | None:
        return None

    def _end(self, channel: Channel) -> None:
        self._open.discard(channel)
        if not self._open:
            self._over.set()

    async def receive(self, channel: Channel, max_bytes: int) -> Buffer:
        try:
            data = await self.stream.receive_some(max_bytes)
        except trio.ClosedResourceError:
            if self._closing:
                raise
            if self._broken:
                raise trio.BrokenResourceError("reset") from None
            data = bytearray()
        if not data:
            self._end(Channel.OUTPUT)
        return data

    async def send(self, data: Buffer) -> None:
        try:
            await self.stream.send_all(data)
        except trio.BrokenResourceError:
            self._end(Channel.INPUT)
            raise
        except trio.ClosedResourceError:
            if self._closing:
                raise
            raise trio.BrokenResourceError("closed by a signal") from None

    async def send_eof(self) -> None:
        await self.stream.send_eof()
        self._end(Channel.INPUT)

    async def wait(self) -> ExitStatus:
        await self._over.wait()
        if self.signals:
            return ExitStatus(signal=self.signals[0])
        return ExitStatus(code=int(self._broken))

    def resize(self, size: TerminalSize) -> None:
        raise AssertionError("a connection has no size")

    def send_signal(self, name: str) -> None:
        self.signals.append(name)
        self._close()
        self._over.set()

    def break_now(self) -> None:
        """The connection is reset."""
        self._broken = True
        self._close()
        self._over.set()

    def _close(self) -> None:
        self.stream.send_stream.close()
        self.stream.receive_stream.close()

    async def aclose(self) -> None:
        self._closing = True
        self._over.set()
        self._close()
        await trio.lowlevel.checkpoint()
