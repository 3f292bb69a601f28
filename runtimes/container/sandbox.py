"""A sandbox that is a container."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
import trio

from runtimes.base import SandboxError, SandboxSpec
from runtimes.container.engine import ContainerHost, Engine
from runtimes.container.errors import EngineError
from runtimes.exec_inside.sandbox import ExecSandbox, Services, open_services

_log = structlog.get_logger()


class ContainerSandbox(ExecSandbox):
    """The processes of one session, in a container of their own; made by `open_container_sandbox`."""

    def __init__(
        self, host: ContainerHost, spec: SandboxSpec, home: str, grace: float, services: Services
    ) -> None:
        super().__init__(host, spec, home, grace, services)
        self._container = host
        self._paused = False

    async def pause(self) -> None:
        """As `Sandbox.pause`: the engine freezes the container."""
        await self._set_paused(paused=True)

    async def resume(self) -> None:
        """As `Sandbox.resume`."""
        await self._set_paused(paused=False)

    async def _set_paused(self, *, paused: bool) -> None:
        await trio.lowlevel.checkpoint()
        if paused == self._paused:
            return
        verb = "pause" if paused else "unpause"
        try:
            await self._container.order(verb)
        except EngineError as error:
            raise SandboxError(f"the container engine could not {verb} it: {error}") from error
        self._paused = paused

    async def aclose(self) -> None:
        """As `ExecSandbox.aclose`."""
        try:
            if self._paused:
                await self._set_paused(paused=False)
        except SandboxError as error:
            _log.warning("container_not_resumed", container=self._container.name, error=str(error))
        finally:
            await super().aclose()


@asynccontextmanager
async def open_container_sandbox(
    engine: Engine, container: str, spec: SandboxSpec, home: str, grace: float
) -> AsyncIterator[ContainerSandbox]:
    """Use a running container as a sandbox for as long as the ``async with`` block lasts.

    Raises:
      SandboxError: nothing can be run in it.
      EngineError: the engine refused.
    """
    host = ContainerHost(engine, container)
    async with open_services(host, home) as services:
        sandbox = ContainerSandbox(host, spec, home, grace, services)
        try:
            await sandbox.check()
            yield sandbox
        finally:
            await sandbox.aclose()
