"""A connection to a desktop through which one can look, and nothing else."""

from __future__ import annotations

from relay.carrier import Buffer
from relay.endpoint import Channel, Endpoint, ExitStatus, TerminalSize
from runtimes.desktop.rfb_filter import FilterStatistics, ViewOnlyFilter


class ViewOnlyEndpoint(Endpoint):
    """Passes everything to `inner`, but for input that would act on the desktop."""

    def __init__(self, inner: Endpoint) -> None:
        self._inner = inner
        self._filter = ViewOnlyFilter()

    @property
    def pid(self) -> int | None:
        """As `Endpoint.pid`."""
        return self._inner.pid

    async def receive(self, channel: Channel, max_bytes: int) -> Buffer:
        """As `Endpoint.receive`."""
        data = await self._inner.receive(channel, max_bytes)
        self._filter.see_output(data)
        return data

    async def send(self, data: Buffer) -> None:
        """As `Endpoint.send`; of `data`, only what passes the filter.

        Raises:
          relay.endpoint.InputRefusedError: it is not the RFB that the filter knows.
        """
        await self._inner.send(self._filter.filter(data))

    async def send_eof(self) -> None:
        """As `Endpoint.send_eof`."""
        await self._inner.send_eof()

    async def wait(self) -> ExitStatus:
        """As `Endpoint.wait`."""
        return await self._inner.wait()

    def resize(self, size: TerminalSize) -> None:
        """As `Endpoint.resize`."""
        self._inner.resize(size)

    def send_signal(self, name: str) -> None:
        """As `Endpoint.send_signal`."""
        self._inner.send_signal(name)

    async def aclose(self) -> None:
        """As `Endpoint.aclose`."""
        await self._inner.aclose()

    def statistics(self) -> FilterStatistics:
        """Return how much passed the filter."""
        return self._filter.statistics()
