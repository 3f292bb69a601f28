"""TLS with an end for each direction.

`trio.SSLStream` can't end its sending side and go on reading, and that is how the input of a process
ends.  TLS can: a close_notify says that no more comes from this side (RFC 8446 § 6.1), and the other
goes on until its own.
"""

from __future__ import annotations

import ssl

import trio

_READ_BYTES = 64 * 1024
_CLOSE_SECONDS = 1.0


class TlsStream(trio.abc.HalfCloseableStream):
    """The client's side of TLS over `transport`, which it owns; call `do_handshake` first."""

    def __init__(self, transport: trio.abc.Stream, context: ssl.SSLContext, host: str) -> None:
        self._transport = transport
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._sending = trio.Lock()
        self._ended = False
        self._broken = False

    async def do_handshake(self) -> None:
        """Agree on keys and check the other side's certificate.

        Raises:
          trio.BrokenResourceError: they could not, or the certificate is not to be trusted.

        Cancellation: the stream is of no use any more.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._fill():
                    raise trio.BrokenResourceError(
                        "the connection ended in the handshake"
                    ) from None
            except ssl.SSLError as error:
                raise trio.BrokenResourceError(str(error)) from error
            else:
                await self._flush()
                return

    async def _flush(self) -> None:
        """Send what waits to be sent."""
        async with self._sending:
            if data := self._outgoing.read():
                sent = False
                try:
                    await self._transport.send_all(data)
                    sent = True
                finally:
                    self._broken = self._broken or not sent

    async def _fill(self) -> bool:
        """Wait for something to come; False if the other side is gone."""
        data = await self._transport.receive_some(_READ_BYTES)
        if not data:
            return False
        self._incoming.write(data)
        return True

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """As `trio.abc.SendStream.send_all`; after a cancellation nothing more can be sent."""
        if self._ended:
            raise trio.ClosedResourceError("the sending side was ended before")
        if self._broken:
            raise trio.BrokenResourceError("sending was broken off before")
        with memoryview(data).cast("B") as view:
            if not view:
                await trio.lowlevel.checkpoint()
                return
            try:
                self._tls.write(view)
            except ssl.SSLError as error:
                raise trio.BrokenResourceError(str(error)) from error
        await self._flush()

    async def wait_send_all_might_not_block(self) -> None:
        """As `trio.abc.SendStream.wait_send_all_might_not_block`."""
        await self._transport.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As `trio.abc.ReceiveStream.receive_some`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            try:
                return self._tls.read(max_bytes or _READ_BYTES)
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._fill():
                    raise trio.BrokenResourceError(
                        "the connection ended without saying so"
                    ) from None
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLError as error:
                raise trio.BrokenResourceError(str(error)) from error

    async def send_eof(self) -> None:
        """As `trio.abc.HalfCloseableStream.send_eof`."""
        if self._ended:
            await trio.lowlevel.checkpoint()
            return
        self._ended = True
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            pass  # it waits for the other side's end, which comes with the last bytes
        except ssl.SSLError as error:
            raise trio.BrokenResourceError(str(error)) from error
        await self._flush()

    async def aclose(self) -> None:
        """As `trio.abc.AsyncResource.aclose`; the other side is told if it takes that at once."""
        try:
            with trio.move_on_after(_CLOSE_SECONDS):
                if not self._broken:
                    await self.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # then it knows
        finally:
            await self._transport.aclose()
