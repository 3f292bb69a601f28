"""One sandbox: starts endpoints through its init, and ends everything."""

from __future__ import annotations

import contextlib
import os
import posixpath
import signal
import socket

import trio

from relay.endpoint import (
    Endpoint,
    FileRequest,
    Kind,
    SocketTarget,
    StartError,
    StartRequest,
    UnsupportedKindError,
)
from relay.file_problems import FileProblem
from runtimes.base import Sandbox, SandboxError, SandboxSpec, SandboxStatistics
from runtimes.bubblewrap.command import HOME, USER
from runtimes.bubblewrap.control import Control, InitLostError
from runtimes.bubblewrap.process import InsideProcess
from runtimes.cgroups import ControlGroup
from runtimes.files import SessionFiles
from runtimes.files.errors import FileError
from runtimes.local.endpoint import Manners, ProcessEndpoint
from runtimes.local.launch import Account, arguments_for, environment_for
from runtimes.local.pipes import PipeEndpoint, PipeEnds
from runtimes.local.sockets import open_socket
from runtimes.local.terminal import TerminalEndpoint
from runtimes.sockets import SocketEndpoint, connect_to_port, growing_pauses

_INHERITED = frozenset({"LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ"})
"""What of the server's own environment is seen inside."""

_PAUSE = 0.01
_PAUSED = "the session is paused; resume it first"


class BubblewrapSandbox(Sandbox):
    """The processes of one session, in namespaces of their own."""

    def __init__(
        self,
        spec: SandboxSpec,
        control: Control,
        files: SessionFiles,
        group: ControlGroup,
        manners: Manners,
        limiter: trio.CapacityLimiter,
    ) -> None:
        self._spec = spec
        self._control = control
        self._files = files
        self._group = group
        self._manners = manners
        self._limiter = limiter
        self._account = Account(USER, HOME, "/bin/sh")
        self._directory = HOME
        self._open: set[Endpoint] = set()
        self._started = 0
        self._closed = False
        self._paused = False
        self._changing = trio.Lock()

    async def enter(self) -> None:
        """Find out early what would make every start fail.

        Raises:
          SandboxError: the directory of the spec cannot be entered.
        """
        shell = next(iter(self._control.shells), self._account.shell)
        self._account = Account(USER, HOME, shell)
        try:
            reply, _ = await self._control.ask({"do": "enter", "path": self._spec.directory})
        except StartError as error:
            raise SandboxError(str(error)) from error
        self._directory = str(reply["path"])

    async def start(self, request: StartRequest) -> Endpoint:
        """As `Sandbox.start`."""
        if request.user not in (None, USER):
            raise StartError(
                f"this sandbox has one user, {USER!r}; nothing can run in it as {request.user!r}"
            )
        self._refuse_when_closed()
        endpoint: Endpoint
        if request.kind is Kind.FILE:
            endpoint = await self._start_on_file(request.file)
            self._started += 1
            return endpoint
        if self._paused:
            raise StartError(_PAUSED)
        if request.kind in (Kind.TCP, Kind.VNC):
            endpoint = await self._connect(request)
        elif request.kind in (Kind.PTY, Kind.EXEC):
            endpoint = await self._launch(request)
        else:
            raise UnsupportedKindError(f"this runtime has no streams of kind {request.kind}")
        self._open.add(endpoint)
        self._started += 1
        if self._closed:
            await endpoint.aclose()
            self._refuse_when_closed()
        return endpoint

    async def _launch(self, request: StartRequest) -> ProcessEndpoint:
        inherited = {name: value for name, value in os.environ.items() if name in _INHERITED}
        environment = environment_for(request, self._spec, inherited, self._account)
        process, fds = await self._control.start(
            {
                "do": "start",
                "kind": request.kind.value,
                "command": list(arguments_for(request, self._spec, self._account)),
                "environment": environment,
                "directory": request.directory,
                "home": self._directory,
                "size": [request.size.columns, request.size.rows],
            }
        )
        # From here on nothing waits: what was started is returned, or ended.
        try:
            return self._endpoint(request.kind, process, fds)
        except OSError as error:
            for fd in fds:
                os.close(fd)
            process.signal_group(signal.SIGKILL)
            process.release()
            raise StartError(f"the process can't be watched: {error.strerror}") from error

    def _endpoint(self, kind: Kind, process: InsideProcess, fds: list[int]) -> ProcessEndpoint:
        if kind is Kind.PTY:
            (master,) = fds
            return TerminalEndpoint(
                process, master, self._manners, self._limiter, self._open.discard
            )
        ends = PipeEnds(*fds)
        return PipeEndpoint(process, ends, self._manners, self._limiter, self._open.discard)

    async def connect(self, target: SocketTarget) -> trio.SocketStream:
        """As `Sandbox.connect`."""
        self._refuse_when_closed()
        if self._paused:
            raise StartError(_PAUSED)
        return await open_socket(
            target,
            to_port=lambda port: connect_to_port(port, self._make_socket),
            to_path=self._connect_to_path,
        )

    async def _connect(self, request: StartRequest) -> Endpoint:
        if request.socket is None:
            raise StartError(f"a stream of kind {request.kind} needs a port or a path")
        return SocketEndpoint(await self.connect(request.socket), self._open.discard)

    async def _make_socket(self, family: int) -> trio.socket.SocketType:
        name = "ipv6" if family == socket.AF_INET6 else "ipv4"
        _, (fd,) = await self._control.ask({"do": "socket", "family": name})
        return trio.socket.from_stdlib_socket(socket.socket(fileno=fd))

    async def _connect_to_path(self, path: str) -> trio.SocketStream:
        """Connect to a Unix socket inside, waiting for a place in its backlog."""
        pauses = growing_pauses()
        while True:
            try:
                reply, fds = await self._control.ask({"do": "connect", "path": path})
            except InitLostError:
                raise
            except StartError as error:
                raise StartError(f"socket {path}: {str(error).lower()}") from error
            if not reply.get("again"):
                connected = trio.socket.from_stdlib_socket(socket.socket(fileno=fds[0]))
                return trio.SocketStream(connected)
            await trio.sleep(next(pauses))

    async def _start_on_file(self, request: FileRequest | None) -> Endpoint:
        if request is None:
            raise StartError("a file stream needs to be told what to do")
        for path in (request.path, request.target):
            if path is not None and _is_elsewhere(path):
                problem = FileError(
                    FileProblem.OUTSIDE,
                    f"{path!r} is not beneath the session's home, {HOME}: only what is there can be"
                    " reached as a file",
                )
                return self._files.refuse(problem)
        return await self._files.start(request)

    def _refuse_when_closed(self) -> None:
        if self._closed or self._control.lost.is_set():
            raise StartError("the session is ending")

    @property
    def broken(self) -> bool:
        """As `Sandbox.broken`: its first process has ended."""
        return self._control.lost.is_set() and not self._control.hung_up

    def statistics(self) -> SandboxStatistics:
        """As `Sandbox.statistics`."""
        return SandboxStatistics(
            endpoints_open=len(self._open) + self._files.open_count,
            endpoints_started=self._started,
        )

    async def pause(self) -> None:
        """As `Sandbox.pause`: by the freezer of the control group, else with SIGSTOP."""
        async with self._changing:
            if self._paused:
                return
            self._refuse_change_when_closed()
            try:
                if self._group.can_freeze:
                    await trio.to_thread.run_sync(self._group.freeze)
                else:
                    await self._signal_all(signal.SIGSTOP)
            except (OSError, StartError) as error:
                raise SandboxError(f"the session can't be paused: {error}") from error
            self._paused = True

    async def resume(self) -> None:
        """As `Sandbox.resume`."""
        async with self._changing:
            if not self._paused:
                return
            self._refuse_change_when_closed()
            try:
                await self._go_on()
            except (OSError, StartError) as error:
                raise SandboxError(f"the session can't be resumed: {error}") from error

    def _refuse_change_when_closed(self) -> None:
        if self._closed or self._control.lost.is_set():
            raise SandboxError("the session is ending")

    async def _go_on(self) -> None:
        if self._group.can_freeze:
            await trio.to_thread.run_sync(self._group.thaw)
        else:
            await self._signal_all(signal.SIGCONT)
        self._paused = False

    async def _signal_all(self, *numbers: signal.Signals) -> int:
        request = {"do": "strike", "pid": None, "numbers": [int(number) for number in numbers]}
        reply, _ = await self._control.ask(request)
        count: int = reply["count"]
        return count

    async def aclose(self) -> None:
        """Ask everything to end, and wait as long as the manners say.  The jail does the rest.

        Cancellation: endpoints are freed all the same, by force.
        """
        self._closed = True
        try:
            if self._paused:
                with contextlib.suppress(OSError, StartError):
                    await self._go_on()
        finally:
            async with trio.open_nursery() as nursery:
                for endpoint in tuple(self._open):
                    nursery.start_soon(endpoint.aclose)
        with contextlib.suppress(StartError), trio.move_on_after(self._manners.grace):
            left = await self._signal_all(signal.SIGTERM, signal.SIGCONT)
            while left:
                await trio.sleep(_PAUSE)
                left = await self._signal_all()


def _is_elsewhere(path: str) -> bool:
    """Tell whether an absolute path is neither beneath the home nor above it."""
    if not path.startswith("/"):
        return False
    path = posixpath.normpath("/" + path.lstrip("/"))
    above = {"/", posixpath.dirname(HOME), HOME}
    return path not in above and not path.startswith(f"{HOME}/")
