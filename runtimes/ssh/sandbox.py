"""A sandbox that is an account's processes on another machine."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
import trio

from relay.endpoint import Endpoint, Kind, SocketTarget, StartError, StartRequest
from relay.service_nursery import open_service_nursery
from runtimes.base import Sandbox, SandboxError, SandboxSpec, SandboxStatistics
from runtimes.exec_inside.files import InnerFiles, open_inner_files
from runtimes.exec_inside.keeper import Keeper, KeeperLost
from runtimes.exec_inside.opening import NotStarted, open_process
from runtimes.exec_inside.process import ExecSpec
from runtimes.exec_inside.scripts import launch, refusal
from runtimes.ssh.channel import RemoteChannel
from runtimes.ssh.connections import Connections
from runtimes.ssh.endpoint import Manners, ProcessEndpoint, Started
from runtimes.ssh.errors import ChannelRefused, SshError
from runtimes.ssh.process import SshExec, SshExecHost
from runtimes.ssh.scripts import MARK, keeper
from runtimes.ssh.sockets import SocketEndpoint

_log = structlog.get_logger()

START_SECONDS = 30.0
"""How long starting a process may take; it is not broken off half-way."""
CLOSE_SECONDS = 5.0
"""How long letting go of the keeper may take."""
SESSION_VARIABLE = "TRUNKLINE_SESSION"

_TERMINAL_ENVIRONMENT = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}


class SshSandbox(Sandbox):
    """The processes of one session; made by `open_ssh_sandbox`.

    `mark` is the value of the variable that all of them carry.  `username` is whose they are.
    """

    def __init__(
        self,
        connections: Connections,
        host: SshExecHost,
        spec: SandboxSpec,
        home: str,
        mark: str,
        username: str,
        files: InnerFiles,
        manners: Manners,
        nursery: trio.Nursery,
    ) -> None:
        self._connections = connections
        self._host = host
        self._spec = spec
        self._home = home
        self._mark = mark
        self._username = username
        self._files = files
        self._manners = manners
        self._nursery = nursery
        self._keeper = Keeper(host, "", home, keeper)
        self._open: set[Endpoint] = set()
        self._started = 0
        self._closed = False

    async def check(self) -> None:
        """Find out early what would make every start fail.

        Raises:
          SandboxError: the home is not there.
          SshError: nothing can be run there.
        """
        try:
            answer = await self._keeper.open()
        except KeeperLost as error:
            raise SandboxError(f"nothing can be run on the SSH host: {error}") from error
        if answer != "ready":
            raise SandboxError(refusal(answer, self._home, "sh"))

    @property
    def broken(self) -> bool:
        """As `Sandbox.broken`: the connection was lost."""
        return not self._closed and self._connections.loss is not None

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
        if request.user not in (None, self._username):
            raise StartError(
                f"this sandbox is the account {self._username!r};"
                f" nothing can run in it as {request.user!r}"
            )
        directory = posixpath.normpath(posixpath.join(self._home, request.directory or ""))
        command = request.command or self._spec.shell
        is_terminal = request.kind is Kind.PTY
        spec = ExecSpec(
            launch(directory, request.size if is_terminal else None, command),
            self._environment(request),
            terminal=is_terminal,
        )
        try:
            started = await self._launch(spec)
        except NotStarted as error:
            name = command[0] if command else "the login shell"
            raise StartError(refusal(error.word, directory, name)) from None
        endpoint = ProcessEndpoint(
            request.kind, started, self._keeper, self._manners, self._open.discard
        )
        endpoint.resize(request.size)
        self._open.add(endpoint)
        self._nursery.start_soon(endpoint.run)
        return endpoint

    async def _launch(self, spec: ExecSpec) -> Started:
        """Start a process.  Not broken off when cancelled: it would run on without an owner."""
        try:
            with trio.fail_after(START_SECONDS) as scope:
                scope.shield = True
                opened = await open_process(self._host, spec)
        except trio.TooSlowError:
            raise StartError(f"it did not start within {START_SECONDS:.0f} s") from None
        if not isinstance(opened.exec_, SshExec):
            raise TypeError("another host has started it")
        return Started(opened.exec_.channel, opened.pid, opened.early)

    def _environment(self, request: StartRequest) -> dict[str, str]:
        return {
            **(_TERMINAL_ENVIRONMENT if request.kind is Kind.PTY else {}),
            **self._spec.environment,
            **request.environment,
            SESSION_VARIABLE: self._spec.session_id,
            MARK: self._mark,
        }

    async def _connect(self, request: StartRequest) -> Endpoint:
        target = request.socket
        if target is None:
            raise StartError(f"a stream of kind {request.kind} needs a port or a path")
        try:
            with trio.fail_after(START_SECONDS) as scope:
                # Broken off half-way, the channel would have no owner.
                scope.shield = True
                channel = await self._open_channel(target)
        except trio.TooSlowError:
            raise StartError(f"{target}: no answer within {START_SECONDS:.0f} s") from None
        except ChannelRefused as error:
            raise StartError(f"{target}: {str(error).lower()}") from error
        except SshError as error:
            raise StartError(str(error)) from error
        endpoint = SocketEndpoint(channel, self._open.discard)
        self._open.add(endpoint)
        self._nursery.start_soon(endpoint.run)
        return endpoint

    async def _open_channel(self, target: SocketTarget) -> RemoteChannel:
        if target.path is not None:
            if not target.path.startswith("/"):
                raise StartError(f"{target.path}: give the absolute path of the socket")
            return await self._connections.open_path(target.path)
        if target.port is None:
            raise AssertionError("a target has either a port or a path")
        return await self._connections.open_port(target.port)

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
        """End every process that has an endpoint, politely, then by force.

        Cancellation: goes straight to force.
        """
        self._closed = True
        try:
            async with trio.open_nursery() as nursery:
                for endpoint in tuple(self._open):
                    nursery.start_soon(endpoint.aclose)
        finally:
            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                await self._keeper.aclose()


@asynccontextmanager
async def open_ssh_sandbox(
    connections: Connections,
    spec: SandboxSpec,
    home: str,
    mark: str,
    username: str,
    manners: Manners,
) -> AsyncIterator[SshSandbox]:
    """Use open connections as a sandbox for as long as the ``async with`` block lasts.

    Raises:
      SandboxError, SshError: nothing can be run in it.
    """
    host = SshExecHost(connections)
    async with open_service_nursery() as nursery, open_inner_files(host, home) as files:
        sandbox = SshSandbox(connections, host, spec, home, mark, username, files, manners, nursery)
        try:
            await sandbox.check()
            yield sandbox
        finally:
            await sandbox.aclose()
