"""A sandbox in which everything is done by programs inside."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from relay.endpoint import Endpoint, Kind, StartError, StartRequest
from relay.service_nursery import open_service_nursery
from runtimes.base import Sandbox, SandboxError, SandboxSpec, SandboxStatistics
from runtimes.exec_inside.connector import ConnectorEndpoint
from runtimes.exec_inside.endpoint import ExecEndpoint
from runtimes.exec_inside.files import InnerFiles, open_inner_files
from runtimes.exec_inside.keeper import Keeper, KeeperLost
from runtimes.exec_inside.opening import NotStarted, Opened, open_process
from runtimes.exec_inside.process import ExecHost, ExecSpec
from runtimes.exec_inside.scripts import connector, launch, no_connection, refusal

SESSION_VARIABLE = "TRUNKLINE_SESSION"

START_SECONDS = 30.0
"""How long starting a process may take; it is not broken off half-way."""

CLOSE_SECONDS = 5.0
"""How long closing the connections may take."""

_TERMINAL_ENVIRONMENT = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
_MAX_KEEPERS = 16
"""Users that processes of one sandbox may run as."""


@dataclass(frozen=True, slots=True)
class Services:
    """What serves a sandbox: access to its files, and a nursery for what serves its processes."""

    files: InnerFiles
    nursery: trio.Nursery


def _do_nothing(_: ExecEndpoint) -> None:
    """Somebody else counts it."""


class ExecSandbox(Sandbox):
    """The processes of one session, started by an `ExecHost`; `services` come from `open_services`."""

    def __init__(
        self, host: ExecHost, spec: SandboxSpec, home: str, grace: float, services: Services
    ) -> None:
        self._host = host
        self._spec = spec
        self._home = home
        self._grace = grace
        self._files = services.files
        self._nursery = services.nursery
        self._keepers: dict[str, Keeper] = {}
        self._open: set[Endpoint] = set()
        self._started = 0
        self._closed = False

    async def check(self) -> None:
        """Find out early what would make every start fail.

        Raises:
          SandboxError: the home is not there, or the image has no shell.
        """
        try:
            answer = await self._keeper("").open()
        except KeeperLost as error:
            raise SandboxError(
                f"nothing can be run in the sandbox: {error}; its image needs a /bin/sh"
            ) from error
        if answer != "ready":
            raise SandboxError(refusal(answer, self._home, "sh"))

    def _keeper(self, user: str) -> Keeper:
        keeper = self._keepers.get(user)
        if keeper is None:
            if len(self._keepers) >= _MAX_KEEPERS:
                raise StartError(f"processes of this session run as {_MAX_KEEPERS} users already")
            keeper = Keeper(self._host, user, self._home)
            self._keepers[user] = keeper
        return keeper

    async def start(self, request: StartRequest) -> Endpoint:
        """As `Sandbox.start`."""
        await trio.lowlevel.checkpoint()
        self._refuse_when_closed()
        endpoint: Endpoint
        match request.kind:
            case Kind.TCP | Kind.VNC:
                endpoint = await self._connect(request)
            case Kind.PTY | Kind.EXEC:
                endpoint = await self._start_process(request)
            case Kind.FILE:
                if request.file is None:
                    raise StartError("a file stream needs to be told what to do")
                endpoint = await self._files.start(request.file)
        self._started += 1
        if self._closed:
            await endpoint.aclose()
            self._refuse_when_closed()
        return endpoint

    async def _start_process(self, request: StartRequest) -> Endpoint:
        directory = posixpath.normpath(posixpath.join(self._home, request.directory or ""))
        command = request.command or self._spec.shell
        is_terminal = request.kind is Kind.PTY
        spec = ExecSpec(
            launch(directory, request.size if is_terminal else None, command),
            self._environment(request),
            terminal=is_terminal,
            user=request.user or "",
        )
        try:
            endpoint = await self._run(request.kind, spec, self._open.discard)
        except NotStarted as error:
            name = command[0] if command else "the login shell"
            raise StartError(refusal(error.word, directory, name)) from None
        self._open.add(endpoint)
        if is_terminal:
            endpoint.resize(request.size)
        return endpoint

    async def _connect(self, request: StartRequest) -> Endpoint:
        target = request.socket
        if target is None:
            raise StartError(f"a stream of kind {request.kind} needs a port or a path")
        if target.path is not None and not target.path.startswith("/"):
            raise StartError(f"{target.path}: give the absolute path of the socket")
        spec = ExecSpec(connector(target.port, target.path), {})
        try:
            process = await self._run(Kind.EXEC, spec, _do_nothing)
        except NotStarted as error:
            other = None
            if error.word == "no-connector" and target.port is not None:
                other = await self._forward(target.port)
            if other is None:
                raise StartError(no_connection(error.word, str(target))) from None
            process = other
        endpoint = ConnectorEndpoint(process, self._open.discard)
        self._open.add(endpoint)
        return endpoint

    async def _forward(self, port: int) -> ExecEndpoint | None:
        """Connect to a port without a program inside, where there is a way; None: there is none.

        Raises:
          StartError: it cannot be reached, and why.
        """
        del port
        await trio.lowlevel.checkpoint()
        return None

    def _serve(
        self,
        kind: Kind,
        opened: Opened,
        keeper: Keeper,
        on_closed: Callable[[ExecEndpoint], None] = _do_nothing,
    ) -> ExecEndpoint:
        """Make the endpoint of a process, and start the task that serves it."""
        endpoint = ExecEndpoint(kind, opened, keeper, self._grace, on_closed)
        self._nursery.start_soon(endpoint.run)
        return endpoint

    async def _run(
        self, kind: Kind, spec: ExecSpec, on_closed: Callable[[ExecEndpoint], None]
    ) -> ExecEndpoint:
        """Start a process and the task that serves it.  Not broken off when cancelled."""
        keeper = self._keeper(spec.user)
        try:
            with trio.fail_after(START_SECONDS) as scope:
                # Broken off half-way, the process would run on without an owner.
                scope.shield = True
                opened = await open_process(self._host, spec)
        except trio.TooSlowError:
            raise StartError(f"it did not start within {START_SECONDS:.0f} s") from None
        return self._serve(kind, opened, keeper, on_closed)

    def _environment(self, request: StartRequest) -> Mapping[str, str]:
        environment = {
            **(_TERMINAL_ENVIRONMENT if request.kind is Kind.PTY else {}),
            **self._spec.environment,
            **request.environment,
            SESSION_VARIABLE: self._spec.session_id,
        }
        for name, value in environment.items():
            if not name or "=" in name or "\0" in name + value:
                raise StartError(f"{name!r} is no name of a variable, or its value holds a NUL")
        return environment

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise StartError("the session is ending")

    def statistics(self) -> SandboxStatistics:
        """As `Sandbox.statistics`."""
        return SandboxStatistics(
            endpoints_open=len(self._open) + self._files.open_count,
            endpoints_started=self._started,
        )

    async def aclose(self) -> None:
        """End every process, politely, then by force.

        Cancellation: goes straight to force; what that leaves ends with the sandbox.
        """
        self._closed = True
        try:
            async with trio.open_nursery() as nursery:
                for endpoint in tuple(self._open):
                    nursery.start_soon(endpoint.aclose)
        finally:
            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                for keeper in self._keepers.values():
                    await keeper.aclose()


@asynccontextmanager
async def open_services(host: ExecHost, home: str) -> AsyncIterator[Services]:
    """Give what an `ExecSandbox` needs for as long as the ``async with`` block lasts.

    `home` is where relative paths begin: an absolute path inside.
    """
    async with open_service_nursery() as nursery, open_inner_files(host, home) as files:
        yield Services(files, nursery)
