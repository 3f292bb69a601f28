"""The ``fake`` runtime: nothing runs anywhere, everything is in memory and in order.

It has the directories ``/``, ``/tmp`` and ``/home/user``, the file ``/dev/null``, the programs of
`runtimes.fake.programs`, a little shell, and the servers of `SERVICES`.

Streams of files are the exception: they work on a directory of their own on the disk, which is made
when the first one is asked for and goes with the sandbox.  The programs do not see it.
"""

from __future__ import annotations

import itertools
import posixpath
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import trio

from relay.endpoint import Endpoint, Kind, StartError, StartRequest
from runtimes.base import Runtime, Sandbox, SandboxError, SandboxSpec, SandboxStatistics
from runtimes.fake.endpoint import FakeEndpoint
from runtimes.fake.programs import Invocation, Program, run
from runtimes.fake.shell import Shell
from runtimes.fake.streams import Streams
from runtimes.files import SessionFiles, open_session_files

_HOME = "/home/user"
_DIRECTORIES = frozenset({"/", "/tmp", "/home", _HOME})  # noqa: S108 - a made-up file system
_FILES = frozenset({"/dev/null"})

_FILE_THREADS = 4
_REMOVAL_SECONDS = 5.0

_SHELLS = frozenset({"sh", "bash", "/bin/sh", "/bin/bash"})

SERVICES: Mapping[int, str] = {7: "cat", 5900: "echo RFB 003.008; cat"}
"""What answers on a port: a script of the little shell, one process for each connection."""

_ENVIRONMENT = {
    "HOME": _HOME,
    "USER": "user",
    "LOGNAME": "user",
    "SHELL": "/bin/sh",
    "PATH": "/bin",
}


class FakeSandbox(Sandbox):
    """Little programs, in memory."""

    def __init__(self, spec: SandboxSpec, grace: float) -> None:
        self._spec = spec
        self._grace = grace
        self._home = _find_directory(spec.directory, _HOME)
        self._pids = itertools.count(1000)
        self._open: set[FakeEndpoint] = set()
        self._started = 0
        self._closed = False
        self._files: SessionFiles | None = None
        self._files_lock = trio.Lock()
        self._resources = AsyncExitStack()

    async def start(self, request: StartRequest) -> Endpoint:
        """As `Sandbox.start`."""
        await trio.lowlevel.checkpoint()
        if request.kind in (Kind.TCP, Kind.VNC):
            request = _service(request)
        elif request.kind is Kind.FILE:
            return await self._start_on_file(request)
        elif request.kind not in (Kind.PTY, Kind.EXEC):
            raise StartError(f"the fake runtime has no streams of kind {request.kind}")
        if self._closed:
            raise StartError("the session is ending")
        streams = Streams(request.size if request.kind is Kind.PTY else None)
        program = self._program(request, streams)
        pid = None if request.socket is not None else next(self._pids)
        endpoint = FakeEndpoint(
            request.kind, program, streams, pid, self._grace, self._open.discard
        )
        self._open.add(endpoint)
        self._started += 1
        endpoint.advance()
        return endpoint

    async def _start_on_file(self, request: StartRequest) -> Endpoint:
        if request.file is None:
            raise StartError("a file stream needs to be told what to do")
        async with self._files_lock:
            if self._closed:
                raise StartError("the session is ending")
            if self._files is None:
                self._files = await self._resources.enter_async_context(
                    _open_files(self._home, trio.CapacityLimiter(_FILE_THREADS))
                )
        self._started += 1
        return await self._files.start(request.file)

    def _program(self, request: StartRequest, streams: Streams) -> Program:
        arguments = request.command or self._spec.shell or ("sh",)
        call = Invocation(
            arguments=arguments,
            environment={
                **_ENVIRONMENT,
                **self._spec.environment,
                **request.environment,
                "TRUNKLINE_SESSION": self._spec.session_id,
            },
            directory=_find_directory(request.directory, self._home),
            streams=streams,
        )
        name, *rest = arguments
        if name in _SHELLS:
            return Shell(call, rest[1] if len(rest) > 1 and rest[0] == "-c" else None)
        try:
            return run(call)
        except KeyError:
            raise StartError(f"{name}: command not found") from None

    def statistics(self) -> SandboxStatistics:
        """As `Sandbox.statistics`."""
        return SandboxStatistics(
            endpoints_open=len(self._open) + (self._files.open_count if self._files else 0),
            endpoints_started=self._started,
        )

    async def aclose(self) -> None:
        """End every program.  Cancellation: goes straight to force."""
        self._closed = True
        async with self._resources, trio.open_nursery() as nursery:
            for endpoint in tuple(self._open):
                nursery.start_soon(endpoint.aclose)


class FakeRuntime(Runtime):
    """Sandboxes in memory.

    `grace` is how many seconds (of the Trio clock) a program that ignores signals may go on after
    it was asked to end.
    """

    def __init__(self, *, grace: float = 2.0) -> None:
        self._grace = grace

    @property
    def name(self) -> str:
        """``"fake"``."""
        return "fake"

    @property
    def isolated(self) -> bool:
        """True: nothing can reach outside."""
        return True

    @asynccontextmanager
    async def open_sandbox(self, spec: SandboxSpec) -> AsyncIterator[FakeSandbox]:
        """As `Runtime.open_sandbox`."""
        await trio.lowlevel.checkpoint()
        try:
            sandbox = FakeSandbox(spec, self._grace)
        except StartError as error:
            raise SandboxError(str(error)) from error
        try:
            yield sandbox
        finally:
            await sandbox.aclose()


@asynccontextmanager
async def _open_files(home: str, limiter: trio.CapacityLimiter) -> AsyncIterator[SessionFiles]:
    directory = await trio.to_thread.run_sync(_make_directories)
    try:
        async with open_session_files(directory, home, limiter) as files:
            yield files
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _REMOVAL_SECONDS):
            await trio.to_thread.run_sync(partial(shutil.rmtree, directory, ignore_errors=True))


def _make_directories() -> str:
    root = tempfile.mkdtemp(prefix="trunkline-fake-")
    for directory in _DIRECTORIES:
        Path(f"{root}{directory}").mkdir(parents=True, exist_ok=True)
    return root


def _service(request: StartRequest) -> StartRequest:
    """Return what connecting comes to here: starting a program."""
    if request.socket is None:
        raise StartError(f"a stream of kind {request.kind} needs a port or a path")
    script = SERVICES.get(request.socket.port or 0)
    if script is None:
        raise StartError(f"{request.socket}: connection refused")
    return replace(request, command=("sh", "-c", script))


def _find_directory(wanted: str | None, home: str) -> str:
    path = posixpath.normpath(posixpath.join(home, wanted or ""))
    if path in _FILES:
        raise StartError(f"{path} is not a directory")
    if path not in _DIRECTORIES:
        raise StartError(f"the directory {path} does not exist")
    return path
