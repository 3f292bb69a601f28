"""Where processes run: the interfaces every back-end implements.

`tests/contracts/runtime_contract.py` is the precise meaning; every back-end passes it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import trio

from relay.endpoint import Endpoint, Kind, SocketTarget, StartRequest
from relay.grant import Grant
from relay.protocol.reasons import CloseReason

if TYPE_CHECKING:  # profiles are made of what is here, and the command line starts with those
    from relay.client import Trunk
    from relay.passage import Passage
    from relay.stream import StreamStatistics


class Network(StrEnum):
    """What a sandbox reaches."""

    NONE = "none"
    """Nothing but a loopback of its own."""
    FULL = "full"
    """Whatever the machine reaches."""


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """What all processes of a sandbox together may use; None: no limit of its own."""

    memory_bytes: int | None = None
    processes: int | None = None
    cpus: float | None = None
    """Processors' worth of time: 0.5 is half of one."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory of the host that is seen inside; both paths are absolute."""

    source: str
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class DesktopSpec:
    """A desktop that is started in the sandbox when somebody wants to see it.

    `width` and `height` are in pixels.  `command` is what runs on it; empty: a terminal, if one is
    installed.  `server` is a command that serves a desktop in place of TigerVNC and starts itself
    what is to be seen; see `runtimes.desktop.launch`.
    """

    width: int = 1280
    height: int = 800
    command: tuple[str, ...] = ()
    server: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """What kind of sandbox to make.

    `runtime` empty means the default one.  `shell` empty means the user's login shell.
    `environment` is added to the runtime's own.  `directory` None means the runtime's home.
    `image` is what a container is made of, `root` the directory that a sandbox without images sees
    as ``/``; None means the runtime's own choice.  `network` None means what the runtime does by
    default: nothing outside, where it isolates.  `keep_home` says that the home outlives the
    session, so that it can be started again.  `vnc` is where the desktop is served, `desktop` what
    starts it there; without it, whatever runs in the sandbox does.  What a runtime has no use for it ignores; what it
    cannot enforce, a limit say, is a `SandboxError`, never silence.
    """

    session_id: str
    shell: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: str | None = None
    image: str | None = None
    runtime: str = ""
    root: str | None = None
    limits: ResourceLimits = ResourceLimits()
    mounts: tuple[Mount, ...] = ()
    network: Network | None = None
    keep_home: bool = False
    vnc: SocketTarget | None = None
    desktop: DesktopSpec | None = None


@dataclass(frozen=True, slots=True)
class SandboxStatistics:
    """How many endpoints of a sandbox are open, and how many were ever started."""

    endpoints_open: int
    endpoints_started: int


class SandboxError(Exception):
    """A sandbox could not be made; the message says why and is shown to the user."""


class Sandbox(ABC):
    """One place where processes run."""

    @abstractmethod
    async def start(self, request: StartRequest) -> Endpoint:
        """Start a process.

        Raises:
          relay.endpoint.StartError: it cannot be started, and why.

        Cancellation: nothing is left running.
        """

    @abstractmethod
    def statistics(self) -> SandboxStatistics:
        """Return a snapshot of the counters."""

    async def connect(self, target: SocketTarget) -> trio.SocketStream | None:
        """Connect to a server inside, as `start` does for kind `tcp`, but hand out the socket itself.

        Returns None, with nothing done, where this runtime has no sockets to give.

        Raises:
          relay.endpoint.StartError: it cannot be reached, and why.

        Cancellation: nothing is left open.
        """
        await trio.lowlevel.checkpoint()
        return None

    @property
    def broken(self) -> bool:
        """Whether the sandbox was lost, and everything in it, before anybody ended it."""
        return False

    async def pause(self) -> None:
        """Stop every process where it is; idempotent.  Memory stays in use, time does not.

        Raises:
          SandboxError: this runtime cannot, or it failed.
        """
        raise SandboxError("this runtime cannot pause sandboxes")

    async def resume(self) -> None:
        """Let the processes go on; idempotent.  Raises: as `pause`."""
        raise SandboxError("this runtime cannot pause sandboxes")


class Runtime(ABC):
    """A back-end that makes sandboxes."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name used in configuration and told to users: ``"local"``, ``"fake"``."""

    @property
    @abstractmethod
    def isolated(self) -> bool:
        """Whether a process inside is kept from harming what is outside."""

    def isolates(self, name: str) -> bool | None:
        """Tell whether the runtime `name` isolates; None where nobody knows it here (any more)."""
        return self.isolated if name == self.name else None

    def keeps_homes(self, name: str) -> bool:
        """Tell whether the runtime `name` heeds `SandboxSpec.keep_home`."""
        return False

    async def remove_home(self, spec: SandboxSpec) -> None:
        """Remove what `SandboxSpec.keep_home` has kept of a session; idempotent.

        Not while it has a sandbox.

        Raises:
          SandboxError: it cannot be removed, and why.
        """
        await trio.lowlevel.checkpoint()

    async def prepare(self) -> None:
        """See that it works here, and remove what an earlier life of this server has left.

        Called once, before any sandbox is made.

        Raises:
          SandboxError: it does not work; says why, and what to do.
        """
        await trio.lowlevel.checkpoint()

    async def end_lost(self, session_ids: Collection[str]) -> None:
        """End what may still run of sessions that an earlier life of this server has lost.

        Cancellation: safe.
        """
        await trio.lowlevel.checkpoint()

    @abstractmethod
    def open_sandbox(self, spec: SandboxSpec) -> AbstractAsyncContextManager[Sandbox]:
        """Make a sandbox that lives as long as the ``async with`` block.

        Leaving the block ends every process in it, politely, then by force, within a few seconds.

        Raises (on entry):
          SandboxError: it cannot be made, and why.
        """


class HostedSession(ABC):
    """A session's sandbox and streams, where they live."""

    @abstractmethod
    def end(self, reason: CloseReason) -> None:
        """Say why the session is about to end: every attachment is closed with `reason`.

        New attachments are refused from now on.  The owner of the session then leaves the
        ``open_session`` block.
        """

    @abstractmethod
    def revoke(self, epoch: int) -> None:
        """Close every attachment whose grant is older than `epoch`, with reason `revoked`."""

    async def pause(self) -> None:
        """Stop every process of the session where it is.  As `Sandbox.pause`."""
        raise SandboxError("this host cannot pause sessions")

    async def resume(self) -> None:
        """Let the processes go on.  As `Sandbox.resume`."""
        raise SandboxError("this host cannot pause sessions")


class UnknownSession(Exception):
    """This host has no such session (any more)."""


@dataclass(frozen=True, slots=True)
class OpenPassage:
    """A connection to a server in a sandbox: its place among the streams, and its socket."""

    passage: Passage
    stream: trio.SocketStream


class SessionHost(ABC):
    """What owns sandboxes and streams: the embedded agent, or one that dialled in."""

    @property
    @abstractmethod
    def runtime_name(self) -> str:
        """The name of the runtime that makes the sandboxes."""

    @property
    @abstractmethod
    def isolated(self) -> bool:
        """Whether that runtime keeps what is inside from harming what is outside."""

    def isolates(self, runtime: str) -> bool | None:
        """Tell the same of a runtime by its name; None where nobody knows it here (any more)."""
        return self.isolated if runtime == self.runtime_name else None

    def keeps_homes(self, runtime: str) -> bool:
        """Tell whether that runtime can keep the home of a session (`SandboxSpec.keep_home`)."""
        return False

    async def remove_home(self, spec: SandboxSpec) -> None:
        """Remove the kept home of a session that is not open.  As `Runtime.remove_home`."""
        await trio.lowlevel.checkpoint()

    async def end_lost(self, session_ids: Collection[str]) -> None:
        """End what may still run of sessions that an earlier life of this host has lost."""
        await trio.lowlevel.checkpoint()

    @abstractmethod
    def open_session(self, spec: SandboxSpec) -> AbstractAsyncContextManager[HostedSession]:
        """Make a sandbox and host its streams for as long as the ``async with`` block lasts.

        Raises (on entry):
          SandboxError: the sandbox cannot be made, and why.
        """

    @abstractmethod
    def open_trunk(self, grant: Grant) -> AbstractAsyncContextManager[Trunk]:
        """Open a trunk to the streams of a session, for a client that cannot speak trunk/1 itself.

        Raises (on entry):
          UnknownSession: the session is not here (any more).
        """

    def open_passage(
        self, grant: Grant, kind: Kind, tag: str, target: SocketTarget
    ) -> AbstractAsyncContextManager[OpenPassage | None]:
        """Connect to a server in a session directly; None where the way leads over a trunk.

        Leaving the block closes the socket.

        Raises (on entry):
          UnknownSession: the session is not here (any more).
          AttachRefused: no, and why.
          relay.endpoint.StartError: the server cannot be reached, and why.
        """
        return nullcontext(None)

    @abstractmethod
    def streams(self, session_id: str) -> tuple[StreamStatistics, ...]:
        """Return a snapshot of the streams of a session, ended ones that are retained included.

        Raises:
          UnknownSession: the session is not here (any more).
        """

    @abstractmethod
    def send_signal(self, session_id: str, tag: str, name: str) -> None:
        """Send the signal `name` (``"TERM"``) to the process group of a stream.

        Does nothing once the process has ended.

        Raises:
          UnknownSession: the session is not here (any more).
          KeyError: there is no such stream.
          ValueError: there is no such signal.
        """
