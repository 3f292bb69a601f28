"""A sandbox that is a pod."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import structlog
import trio

from relay.endpoint import Kind
from relay.service_nursery import open_service_nursery
from runtimes.base import SandboxError, SandboxSpec
from runtimes.exec_inside.endpoint import ExecEndpoint
from runtimes.exec_inside.process import ExecError, ExecSpec
from runtimes.exec_inside.sandbox import ExecSandbox, Services, open_services
from runtimes.exec_inside.scripts import SHELL
from runtimes.kubernetes.api import KubeApi
from runtimes.kubernetes.errors import KubeError
from runtimes.kubernetes.exec import PodHost
from runtimes.kubernetes.forward import ForwardKeeper, open_forward
from runtimes.kubernetes.pods import readiness

_log = structlog.get_logger()

WATCH_SECONDS = 10.0
"""How often it is looked whether the pod is still there."""

_MAX_PATH_BYTES = 8192


class KubeSandbox(ExecSandbox):
    """The processes of one session, in a pod of their own; made by `open_kube_sandbox`."""

    def __init__(
        self,
        api: KubeApi,
        pod: str,
        host: PodHost,
        spec: SandboxSpec,
        home: str,
        grace: float,
        services: Services,
    ) -> None:
        super().__init__(host, spec, home, grace, services)
        self._api = api
        self._pod = pod
        self._broken = False

    @property
    def broken(self) -> bool:
        """As `Sandbox.broken`: the pod was deleted, evicted, or has ended."""
        return self._broken

    async def watch(self) -> None:
        """Look now and then whether the pod is still there; returns when it is not."""
        while not self._broken:
            await trio.sleep(WATCH_SECONDS)
            try:
                state = readiness(await self._api.pod(self._pod))
            except KubeError as error:
                self._broken = error.is_missing
                continue
            if state.final:
                _log.warning("pod_lost", pod=self._pod, reason=state.reason)
                self._broken = True

    async def _forward(self, port: int) -> ExecEndpoint | None:
        """As `ExecSandbox._forward`: the node connects."""
        opened = await open_forward(self._api, self._pod, port, self._nursery)
        return self._serve(Kind.EXEC, opened, ForwardKeeper(opened.exec_))


@asynccontextmanager
async def open_kube_sandbox(
    api: KubeApi,
    pod: str,
    container: str,
    environment: Mapping[str, str],
    spec: SandboxSpec,
    home: str | None,
    grace: float,
) -> AsyncIterator[KubeSandbox]:
    """Use a pod that is ready as a sandbox for as long as the ``async with`` block lasts.

    `home` None means the working directory of its image.

    Raises:
      SandboxError: nothing can be run in it.
      KubeError: the API server refused.
    """
    async with open_service_nursery() as nursery:
        host = PodHost(api, pod, container, environment, nursery)
        if home is None:
            home = await _working_directory(host)
        async with open_services(host, home) as services:
            sandbox = KubeSandbox(api, pod, host, spec, home, grace, services)
            nursery.start_soon(sandbox.watch)
            try:
                await sandbox.check()
                yield sandbox
            finally:
                await sandbox.aclose()


async def _working_directory(host: PodHost) -> str:
    spec = ExecSpec((SHELL, "-c", "pwd"), {}, ends_input=False)
    said = bytearray()
    try:
        running = await host.start(spec)
        try:
            while (pieces := await running.receive()) and len(said) < _MAX_PATH_BYTES:
                for _, piece in pieces:
                    said += piece
            code = await running.exit_code()
        finally:
            await running.aclose()
    except KubeError:
        raise
    except (ExecError, trio.BrokenResourceError) as error:
        raise SandboxError(
            f"nothing can be run in the pod: {error}; its image needs a /bin/sh"
        ) from error
    directory = said.decode("utf-8", "replace").rstrip("\n")
    if code or not directory.startswith("/"):
        raise SandboxError(f"the pod does not tell its working directory: {directory[:500]}")
    return directory
