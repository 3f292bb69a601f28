"""A connection to a port as a Trio stream.

An attachment to a `tcp` or `vnc` stream has the same two directions as a socket, each with an end of
its own; this gives them the names and the manners of `trio.abc.HalfCloseableStream`.  It outlives
links as the attachment does: a cut only shows as a pause.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import trio

from relay.carrier import Buffer
from relay.client_attachment import ClientAttachment
from relay.endpoint import Channel, SocketEnd
from relay.errors import RelayError
from relay.inbox import Missed

CLOSE_SECONDS = 10.0
"""How long closing waits for what was sent before to be taken."""


class AttachmentStream(trio.abc.HalfCloseableStream):
    """Takes over an attachment to a `tcp` or `vnc` stream.

    `detach` gives the attachment up (`relay.client.Trunk.detach`).  What ends the attachment (the
    session, a revocation) comes out as `trio.BrokenResourceError`, with a `RelayError` as its cause.
    """

    def __init__(
        self,
        attachment: ClientAttachment,
        detach: Callable[[ClientAttachment], None],
        *,
        close_seconds: float = CLOSE_SECONDS,
    ) -> None:
        self.attachment = attachment
        self._detach = detach
        self.close_seconds = close_seconds
        self._piece = b""
        self._at = 0  # how much of the piece has been returned
        self._at_end = False
        self._eof_sent = False
        self._closed = False
        self._receiving: trio.CancelScope | None = None
        self._sending: trio.CancelScope | None = None

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See `trio.abc.ReceiveStream`.  Cancellation: safe; no byte is lost.

        Raises:
          trio.BrokenResourceError: the connection broke: bytes may be missing.
        """
        if max_bytes is not None:
            if not isinstance(max_bytes, int):
                raise TypeError("max_bytes must be an integer")
            if max_bytes < 1:
                raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        if self._receiving is not None:
            raise trio.BusyResourceError("another task is receiving from this stream")
        with trio.CancelScope() as self._receiving, _translated_errors():
            try:
                await self._fill()
            finally:
                self._receiving = None
        self._refuse_when_closed()
        start, self._at = self._at, len(self._piece)
        if max_bytes is not None:
            self._at = min(self._at, start + max_bytes)
        return self._piece[start : self._at]  # no copy where it is the whole piece

    async def _fill(self) -> None:
        """Wait until there is something to return, or the end."""
        if self._closed or self._at < len(self._piece) or self._at_end:
            await trio.lowlevel.checkpoint()
            return
        item = await self.attachment.receive(Channel.OUTPUT)
        if isinstance(item, Missed):
            raise trio.BrokenResourceError(f"{item.to - item.start} bytes were lost")
        if item is not None:
            self._piece, self._at = item.data, 0
            return
        if self.attachment.input_stopped:
            # Both directions are over; so how it ended is known, or will be at once.
            status = await self.attachment.wait()
            if status.code not in (SocketEnd.IN_ORDER, SocketEnd.INPUT_LEFT):
                raise trio.BrokenResourceError("the connection broke")
        self._at_end = True

    async def send_all(self, data: Buffer) -> None:
        """See `trio.abc.SendStream`.

        Returns when the bytes are kept for sending, which goes on over any number of links.

        Cancellation: some, all or none of `data` may have been taken.
        """
        with self._as_sender():
            if self._eof_sent:
                raise trio.ClosedResourceError("the end was sent before")
            await self.attachment.send(data)

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`.  Cancellation: safe."""
        with self._as_sender():
            await self.attachment.wait_input_room()

    async def send_eof(self) -> None:
        """See `trio.abc.HalfCloseableStream`; returns at once, before what was sent is taken."""
        with self._as_sender():
            await trio.lowlevel.checkpoint()
            self._eof_sent = True
            self.attachment.send_eof()

    @contextmanager
    def _as_sender(self) -> Iterator[None]:
        if self._sending is not None:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._refuse_when_closed()
        with trio.CancelScope() as self._sending, _translated_errors():
            try:
                yield
            finally:
                self._sending = None
        self._refuse_when_closed()

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed here")

    async def aclose(self) -> None:
        """Close the connection, once what was sent has been taken; see `trio.abc.AsyncResource`.

        If it was not within `close_seconds`, the connection is reset.  What still comes is discarded.

        Cancellation: resets the connection, if there is a link now; else its owner will find out.
        """
        await self._leave(self._close)

    async def reset(self) -> None:
        """Reset the connection: who is at its other end learns that this one broke.

        Cancellation: as for `aclose`.
        """
        await self._leave(self._reset)

    async def _leave(self, say_goodbye: Callable[[], Awaitable[None]]) -> None:
        first, self._closed = not self._closed, True
        for scope in (self._receiving, self._sending):
            if scope is not None:
                scope.cancel()
        done = False
        try:
            await trio.lowlevel.checkpoint()
            if first:
                with trio.move_on_after(self.close_seconds):
                    await say_goodbye()
                    done = True
        except* RelayError:
            done = True  # it is over already
        finally:
            if first:
                if not done:
                    self.attachment.send_signal("KILL")
                self._detach(self.attachment)

    async def _close(self) -> None:
        self.attachment.send_eof()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._discard)
            await self.attachment.wait_input_stopped()
            self.attachment.send_signal("HUP")
        await self.attachment.wait()

    async def _reset(self) -> None:
        self.attachment.send_signal("KILL")
        await self._discard()
        await self.attachment.wait()

    async def _discard(self) -> None:
        """Take what still comes, so that it holds up neither the other side nor its end."""
        while await self.attachment.receive(Channel.OUTPUT) is not None:
            pass


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except RelayError as error:
        raise trio.BrokenResourceError(str(error)) from error
