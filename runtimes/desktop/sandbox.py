"""A sandbox whose desktop is there when somebody looks at it.

Theory of operation
-------------------
`DesktopSandbox` stands in front of the sandbox of a runtime.  Who connects to where the desktop is served
waits until it is served.  The first one has it started: a task of the sandbox, not of the viewer, starts the
desktop, waits until it answers, and watches over it until it ends.  So viewers may come together and leave
as they like, and one desktop is started.  Should it end by itself, the next viewer starts another.

A viewer who may only look gets its connection through a filter, whatever serves the desktop.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
import trio

from relay.endpoint import (
    Channel,
    Endpoint,
    ExitStatus,
    Kind,
    SocketTarget,
    StartError,
    StartRequest,
)
from relay.service_nursery import open_service_nursery
from runtimes.base import DesktopSpec, Sandbox, SandboxSpec, SandboxStatistics
from runtimes.desktop.launch import desktop_request, failure
from runtimes.desktop.viewing import ViewOnlyEndpoint
from runtimes.sockets import growing_pauses

START_SECONDS = 20.0
"""How long a desktop may take until it answers."""

# Of what it says, for the error message.
_KEPT_BYTES = 2048
_KEPT_LINES = 6
_READ_BYTES = 4096
_GREETING = b"RFB "
_ANSWER_SECONDS = 5.0
_LAST_WORDS_SECONDS = 1.0

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DesktopStatistics:
    """`started`: how many desktops were started, one after the other."""

    running: bool
    started: int


class _Words:
    """The end of what the desktop's programs print."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self.complete = trio.Event()

    async def collect(self, endpoint: Endpoint) -> None:
        """Read both channels to their end, so that nobody who prints has to wait."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, endpoint, Channel.OUTPUT)
            nursery.start_soon(self._read, endpoint, Channel.ERROR)
        self.complete.set()

    async def _read(self, endpoint: Endpoint, channel: Channel) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            while data := await endpoint.receive(channel, _READ_BYTES):
                self._bytes += data
                del self._bytes[:-_KEPT_BYTES]

    def __str__(self) -> str:
        lines = [line.strip() for line in self._bytes.decode(errors="replace").split("\n")]
        return " | ".join([line for line in lines if line][-_KEPT_LINES:])


class _Start:
    """One desktop on its way, or there.  `scope` surrounds what waits for it and watches over it."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.settled = trio.Event()
        self.error: StartError | None = None

    def fail(self, error: StartError) -> None:
        """It will not be there; means nothing once it is."""
        if not self.settled.is_set():
            self.error = error
            self.settled.set()


class DesktopSandbox(Sandbox):
    """`inner`, with a desktop.  Made by `open_desktop`, which owns its tasks."""

    def __init__(self, inner: Sandbox, spec: SandboxSpec, nursery: trio.Nursery) -> None:
        self._inner = inner
        self._spec = spec
        self._nursery = nursery
        self._current: _Start | None = None
        self._closing = False
        self._started = 0

    async def start(self, request: StartRequest) -> Endpoint:
        """As `Sandbox.start`; waits for the desktop if it leads there."""
        if request.kind is not Kind.VNC:
            return await self._inner.start(request)
        await self._wait_for(request.socket)
        endpoint = await self._inner.start(request)
        return ViewOnlyEndpoint(endpoint) if request.view_only else endpoint

    async def connect(self, target: SocketTarget) -> trio.SocketStream | None:
        """As `Sandbox.connect`; waits for the desktop if it leads there."""
        await self._wait_for(target)
        return await self._inner.connect(target)

    @property
    def broken(self) -> bool:
        """As `Sandbox.broken`."""
        return self._inner.broken

    async def pause(self) -> None:
        """As `Sandbox.pause`."""
        await self._inner.pause()

    async def resume(self) -> None:
        """As `Sandbox.resume`."""
        await self._inner.resume()

    def statistics(self) -> SandboxStatistics:
        """As `Sandbox.statistics`; the desktop is one of the endpoints."""
        return self._inner.statistics()

    def desktop_statistics(self) -> DesktopStatistics:
        """Return a snapshot of the desktop's counters."""
        current = self._current
        running = current is not None and current.settled.is_set() and current.error is None
        return DesktopStatistics(running, self._started)

    # ---------------------------------------------------------------- the desktop

    async def _wait_for(self, target: SocketTarget | None) -> None:
        """Wait until the desktop is there, if there is to be one at `target`.

        Raises:
          StartError: it cannot be started, and why.

        Cancellation: it is started all the same; the next viewer finds it.
        """
        if self._spec.desktop is None or target is None or target != self._spec.vnc:
            return
        if self._closing:
            raise StartError("the session is ending")
        if self._current is None:
            self._current = _Start()
            self._nursery.start_soon(self._run, self._current, self._spec.desktop, target)
        current = self._current
        await current.settled.wait()
        if current.error is not None:
            raise StartError(str(current.error))

    def close(self) -> None:
        """Have the desktop end; its task does so politely."""
        self._closing = True
        if self._current is not None:
            self._current.scope.cancel()

    async def _run(self, start: _Start, desktop: DesktopSpec, target: SocketTarget) -> None:
        """Start the desktop, and watch over it until it ends."""
        try:
            request = desktop_request(desktop, self._spec.session_id)
            endpoint = await self._inner.start(request)
            self._started += 1
            try:
                with start.scope:
                    await self._watch(endpoint, start, desktop, target)
            finally:
                await endpoint.aclose()
        except StartError as error:
            start.fail(error)
        finally:
            self._current = None
            start.fail(StartError("the session is ending"))

    async def _watch(
        self, endpoint: Endpoint, start: _Start, desktop: DesktopSpec, target: SocketTarget
    ) -> None:
        """Wait until the desktop answers, then until it ends.

        Raises:
          StartError: it does not answer, or has ended before it did.
        """
        log = _log.bind(session=self._spec.session_id)
        words = _Words()
        began = trio.current_time()
        async with open_service_nursery() as nursery:
            nursery.start_soon(words.collect, endpoint)
            with trio.move_on_after(START_SECONDS):
                status = await self._until_answered(endpoint, target)
                if status is not None:
                    with trio.move_on_after(_LAST_WORDS_SECONDS):
                        await words.complete.wait()
                    raise failure(status.code, str(words), desktop)
                start.settled.set()
            if not start.settled.is_set():
                log.warning("desktop does not answer", output=str(words))
                said = f": {words}" if str(words) else ""
                raise StartError(f"the desktop does not answer after {START_SECONDS:g} s{said}")
            log.info("desktop started", seconds=round(trio.current_time() - began, 3))
            status = await endpoint.wait()
            with trio.move_on_after(_LAST_WORDS_SECONDS):
                await words.complete.wait()
            log.info("desktop ended", code=status.code, signal=status.signal, output=str(words))

    async def _until_answered(self, endpoint: Endpoint, target: SocketTarget) -> ExitStatus | None:
        """Wait until the desktop answers; if it ends before, return how."""
        ended: ExitStatus | None = None
        async with trio.open_nursery() as nursery:

            async def wait_for_end() -> None:
                nonlocal ended
                ended = await endpoint.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(wait_for_end)
            await self._greets(target)
            nursery.cancel_scope.cancel()
        return ended

    async def _greets(self, target: SocketTarget) -> None:
        """Connect until a VNC server says its first words."""
        for pause in growing_pauses():
            with contextlib.suppress(StartError):
                viewer = await self._inner.start(StartRequest(Kind.VNC, socket=target))
                try:
                    with (
                        trio.move_on_after(_ANSWER_SECONDS),
                        contextlib.suppress(trio.BrokenResourceError),
                    ):
                        if bytes(await viewer.receive(Channel.OUTPUT, _READ_BYTES)).startswith(
                            _GREETING
                        ):
                            return
                finally:
                    await viewer.aclose()
            await trio.sleep(pause)


@asynccontextmanager
async def open_desktop(sandbox: Sandbox, spec: SandboxSpec) -> AsyncIterator[DesktopSandbox]:
    """Put the desktop of `spec` into `sandbox`; leaving the block ends it.

    Nothing is started before somebody connects to it.
    """
    async with trio.open_nursery() as nursery:
        desktop = DesktopSandbox(sandbox, spec, nursery)
        try:
            yield desktop
        finally:
            desktop.close()
