"""The ``local`` runtime.

Nothing keeps a process here from harming what is outside: it may do whatever the server's own user
may do.  That suits a laptop, and a container or machine that exists for one user alone.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager

import structlog
import trio

from relay.endpoint import Endpoint, Kind, SocketTarget, StartError, StartRequest
from runtimes.base import (
    Network,
    ResourceLimits,
    Runtime,
    Sandbox,
    SandboxError,
    SandboxSpec,
    SandboxStatistics,
)
from runtimes.files import SessionFiles, open_session_files
from runtimes.local.dispositions import hand_down_default_signals
from runtimes.local.endpoint import FORCE_SECONDS, Manners, ProcessEndpoint
from runtimes.local.launch import SESSION_VARIABLE, prepare
from runtimes.local.pipes import start_on_pipes
from runtimes.local.processes import end_by_force, end_politely, started_with, started_with_any
from runtimes.local.sockets import connect, open_socket
from runtimes.local.terminal import start_on_terminal

_log = structlog.get_logger()

# Threads that start processes or read /proc at the same time, in one runtime.
_THREADS = 4
# Threads that read and write files.
_FILE_THREADS = 8


class LocalSandbox(Sandbox):
    """The processes of one session, on the server's own machine."""

    def __init__(
        self,
        spec: SandboxSpec,
        manners: Manners,
        limiter: trio.CapacityLimiter,
        files: SessionFiles,
    ) -> None:
        self._spec = spec
        self._files = files
        self._manners = manners
        self._limiter = limiter
        self._open: set[Endpoint] = set()
        self._started = 0
        self._closed = False

    async def start(self, request: StartRequest) -> Endpoint:
        """As `Sandbox.start`."""
        if request.kind in (Kind.TCP, Kind.VNC):
            return await self._connect(request)
        if request.kind is Kind.FILE:
            return await self._start_on_file(request)
        if request.kind not in (Kind.PTY, Kind.EXEC):
            raise StartError(f"the local runtime has no streams of kind {request.kind}")
        self._refuse_when_closed()
        hand_down_default_signals()
        # Not abandoned when cancelled, and no checkpoint after it: what was started is returned.
        endpoint = await trio.to_thread.run_sync(
            self._launch, request, dict(os.environ), limiter=self._limiter
        )
        self._open.add(endpoint)
        self._started += 1
        try:
            self._refuse_when_closed()
        except StartError:
            await endpoint.aclose()
            raise
        return endpoint

    async def _connect(self, request: StartRequest) -> Endpoint:
        if request.socket is None:
            raise StartError(f"a stream of kind {request.kind} needs a port or a path")
        self._refuse_when_closed()
        endpoint = await connect(request.socket, self._open.discard)
        self._open.add(endpoint)
        self._started += 1
        if self._closed:
            await endpoint.aclose()
            self._refuse_when_closed()
        return endpoint

    async def connect(self, target: SocketTarget) -> trio.SocketStream:
        """As `Sandbox.connect`."""
        self._refuse_when_closed()
        return await open_socket(target)

    async def _start_on_file(self, request: StartRequest) -> Endpoint:
        if request.file is None:
            raise StartError("a file stream needs to be told what to do")
        self._refuse_when_closed()
        endpoint = await self._files.start(request.file)
        self._started += 1
        return endpoint

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise StartError("the session is ending")

    def _launch(
        self, request: StartRequest, server_environment: Mapping[str, str]
    ) -> ProcessEndpoint:
        launch = prepare(request, self._spec, server_environment)
        if request.kind is Kind.PTY:
            return start_on_terminal(
                launch, request.size, self._manners, self._limiter, self._open.discard
            )
        return start_on_pipes(launch, self._manners, self._limiter, self._open.discard)

    def statistics(self) -> SandboxStatistics:
        """As `Sandbox.statistics`."""
        return SandboxStatistics(
            endpoints_open=len(self._open) + self._files.open_count,
            endpoints_started=self._started,
        )

    async def aclose(self) -> None:
        """End every process of the session, politely, then by force.

        Cancellation: goes straight to force, and still leaves nothing behind.
        """
        self._closed = True
        strays = started_with(SESSION_VARIABLE, self._spec.session_id)
        try:
            async with trio.open_nursery() as nursery:
                for endpoint in tuple(self._open):
                    nursery.start_soon(endpoint.aclose)
            await end_politely(strays, signal.SIGTERM, self._manners.grace, self._limiter)
        finally:
            with trio.move_on_after(FORCE_SECONDS, shield=True) as scope:
                await end_by_force(strays, self._limiter)
            if scope.cancelled_caught:
                _log.warning("processes_survived_sigkill", session_id=self._spec.session_id)


class LocalRuntime(Runtime):
    """Sandboxes that are plain processes of the server's own user.

    `grace` is how many seconds a process has between being asked to end and being killed.
    `linger` is how many seconds a channel that a background process still holds open stays open
    without data after the process itself has ended.
    `file_root` is the directory that file streams do not get out of.  `file_home`, an absolute path
    beneath it, is where their relative paths begin; None means the session's directory.
    """

    def __init__(
        self,
        *,
        grace: float = 2.0,
        linger: float = 1.0,
        file_root: str = "/",
        file_home: str | None = None,
    ) -> None:
        self._manners = Manners(grace=grace, linger=linger)
        self._limiter = trio.CapacityLimiter(_THREADS)
        self._file_limiter = trio.CapacityLimiter(_FILE_THREADS)
        self._file_root = file_root
        self._file_home = file_home

    @property
    def name(self) -> str:
        """``"local"``."""
        return "local"

    @property
    def isolated(self) -> bool:
        """False: a process may do whatever the server's own user may do."""
        return False

    async def end_lost(self, session_ids: Collection[str]) -> None:
        """As `Runtime.end_lost`: processes are known by the variable that they carry."""
        strays = started_with_any(SESSION_VARIABLE, session_ids)
        await end_politely(strays, signal.SIGTERM, self._manners.grace, self._limiter)
        with trio.move_on_after(FORCE_SECONDS) as scope:
            await end_by_force(strays, self._limiter)
        if scope.cancelled_caught:
            _log.warning("processes_survived_sigkill", sessions=len(session_ids))

    @asynccontextmanager
    async def open_sandbox(self, spec: SandboxSpec) -> AsyncIterator[LocalSandbox]:
        """As `Runtime.open_sandbox`."""
        home = await trio.to_thread.run_sync(self._prepare, spec, limiter=self._limiter)
        async with open_session_files(self._file_root, home, self._file_limiter) as files:
            sandbox = LocalSandbox(spec, self._manners, self._limiter, files)
            try:
                yield sandbox
            finally:
                await sandbox.aclose()

    def _prepare(self, spec: SandboxSpec) -> str:
        """Find out early what would make every start fail; return the home of file streams."""
        directory = _check(spec)
        try:
            os.close(os.open(self._file_root, os.O_PATH | os.O_DIRECTORY))
        except OSError as error:
            raise SandboxError(
                f"the root for files, {self._file_root}, can't be opened: {error.strerror}"
            ) from error
        return self._file_home or _beneath(self._file_root, directory)


def _beneath(root: str, directory: str) -> str:
    """Return what `directory` is called by those who see `root` as ``/``; else ``/``."""
    root, directory = os.path.realpath(root), os.path.realpath(directory)
    if os.path.commonpath((root, directory)) != root:
        return "/"
    return f"/{os.path.relpath(directory, root)}"


def _check(spec: SandboxSpec) -> str:
    """Find out early what would make every start fail; return where processes start."""
    if not spec.session_id or "\0" in spec.session_id:
        raise SandboxError(f"the session id {spec.session_id!r} is empty or contains a NUL")
    for what, asked in (
        ("limits", spec.limits != ResourceLimits()),
        ("network", spec.network is Network.NONE),
        ("root", spec.root is not None),
        ("mounts", bool(spec.mounts)),
    ):
        if asked:
            raise SandboxError(
                f"{what}: the local runtime does not isolate, so it cannot do this;"
                ' set runtime = "bubblewrap" in the profile, or leave the key out'
            )
    try:
        # A start inside finds out the same things again, since they may change.
        launch = prepare(StartRequest(Kind.PTY, ("/bin/sh",)), spec, os.environ)
        os.close(os.pidfd_open(os.getpid()))
    except StartError as error:
        raise SandboxError(str(error)) from error
    except OSError as error:
        raise SandboxError(
            f"processes can't be watched (pidfd_open: {error.strerror});"
            " the local runtime needs Linux 5.3 or later"
        ) from error
    except AttributeError as error:
        raise SandboxError("the local runtime needs Linux") from error
    else:
        return launch.directory
