"""What a stream reads from and writes to: the sandbox's side, as the relay sees it.

Runtimes implement `Endpoint`; the relay never asks what is behind it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from relay.carrier import Buffer


class Kind(StrEnum):
    """What a stream carries."""

    PTY = "pty"
    EXEC = "exec"
    FILE = "file"
    VNC = "vnc"
    TCP = "tcp"


class Channel(IntEnum):
    """The byte sequences of a stream, numbered as file descriptors are."""

    INPUT = 0
    """Client to sandbox: keystrokes, standard input."""
    OUTPUT = 1
    """Sandbox to client: terminal output, standard output."""
    ERROR = 2
    """Sandbox to client: standard error (`exec` only)."""


OUTPUT_CHANNELS: Mapping[Kind, tuple[Channel, ...]] = {
    Kind.PTY: (Channel.OUTPUT,),
    Kind.EXEC: (Channel.OUTPUT, Channel.ERROR),
    Kind.FILE: (Channel.OUTPUT, Channel.ERROR),  # content or entries; what is told about them
    Kind.VNC: (Channel.OUTPUT,),
    Kind.TCP: (Channel.OUTPUT,),
}


class Overflow(StrEnum):
    """What a stream does when its replay ring is full and nobody has read what is in it."""

    BLOCK = "block"
    """Stop reading: back-pressure reaches the process."""
    DROP_OLDEST = "drop_oldest"
    """Forget the oldest bytes; who comes later is told with a GAP."""


@dataclass(frozen=True, slots=True)
class TerminalSize:
    """Columns and rows of a terminal, each in 1..65535 (a Linux `winsize` holds 16 bits)."""

    columns: int = 80
    rows: int = 24

    def __post_init__(self) -> None:
        if not (1 <= self.columns <= 0xFFFF and 1 <= self.rows <= 0xFFFF):
            raise ValueError(f"terminal size {self.columns}x{self.rows}: each must be in 1..65535")


@dataclass(frozen=True, slots=True)
class SocketTarget:
    """What a `tcp` or `vnc` stream connects to inside the sandbox: a TCP port or a Unix socket."""

    port: int | None = None
    path: str | None = None

    def __post_init__(self) -> None:
        if (self.port is None) == (self.path is None):
            raise ValueError("a socket target has either a port or a path")
        if self.port is not None and not 1 <= self.port <= 0xFFFF:
            raise ValueError(f"port {self.port}: must be in 1..65535")

    def __str__(self) -> str:
        return f"port {self.port}" if self.path is None else f"socket {self.path}"


class FileOperation(StrEnum):
    """What a `file` stream does (docs/spec/trunk-1.md § 6)."""

    READ = "read"
    WRITE = "write"
    LIST = "list"
    STAT = "stat"
    MAKE_DIRECTORY = "mkdir"
    MOVE = "move"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class FileRequest:
    """One operation on a file or directory of the sandbox (docs/spec/trunk-1.md § 6).

    `path` (and `target`, for MOVE) are relative to the session's home, or absolute within the
    sandbox.  Sizes and offsets are in bytes, `modified` in nanoseconds since the epoch.  `checksum`
    is ``algorithm:hexadecimal`` (sha1, sha256, sha512).
    """

    operation: FileOperation
    path: str
    target: str | None = None
    offset: int = 0
    length: int | None = None
    size: int | None = None
    sha256: str | None = None
    checksum: str | None = None
    digest: bool = False
    mode: int | None = None
    modified: int | None = None
    upload: str | None = None
    note: str | None = None
    depth: int = 1
    parents: bool = False
    recursive: bool = False
    overwrite: bool = True
    if_match: str | None = None


@dataclass(frozen=True, slots=True)
class StartRequest:
    """What to run, connect to or do.

    `command` empty means the user's login shell.  `environment` is added to that of the sandbox.
    `directory` None means the session's home, `user` None the sandbox's own.  A process that still
    runs after `timeout` seconds is ended, by force if need be.  `size` counts for `pty` only,
    `socket` for `tcp` and `vnc`, `file` for `file`.  `overflow` None means the default of the kind: `drop_oldest` for
    pty, `block` for everything else.  `view_only` (`vnc` only): who asks may watch the desktop, and
    nothing else; whoever starts it sees to that.
    """

    kind: Kind
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: str | None = None
    size: TerminalSize = TerminalSize()
    overflow: Overflow | None = None
    socket: SocketTarget | None = None
    file: FileRequest | None = None
    user: str | None = None
    timeout: float | None = None
    view_only: bool = False


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: an exit code in 0..255, or the name of the signal that killed it.

    Of a socket: a `SocketEnd`, or the name of the signal by which it was told to close.
    """

    code: int | None = None
    signal: str | None = None

    def __post_init__(self) -> None:
        if (self.code is None) == (self.signal is None):
            raise ValueError("an exit status has either a code or a signal")


class SocketEnd(IntEnum):
    """How a connection to a port ended, as an exit code (docs/spec/trunk-1.md § 6)."""

    IN_ORDER = 0
    """Both directions have ended, and all bytes were taken."""
    BROKEN = 1
    """The connection broke: the end of its output may be missing."""
    INPUT_LEFT = 2
    """The output has ended in order, but the other side did not take all of the input."""


class StartError(Exception):
    """The endpoint could not be started; the message says why and is shown to the user."""


class InputRefusedError(Exception):
    """The input is not what this endpoint lets pass; the message says why and is shown to the user."""


class UnsupportedKindError(StartError):
    """The runtime has no streams of this kind."""


class Endpoint(ABC):
    """A running process (or an open socket) with its byte sequences.

    At most one task receives on each channel and one sends at the same time.
    """

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """The process id inside the sandbox, where there is a process."""

    @abstractmethod
    async def receive(self, channel: Channel, max_bytes: int) -> Buffer:
        """Wait for output and return 1..`max_bytes` of it; ``b""`` at the end of the channel.

        Takes what is there without waiting for more, but takes all of it up to `max_bytes`, so
        that a flood arrives in few large pieces.  The buffer is the caller's to keep.

        Raises:
          trio.BrokenResourceError: the channel has ended, and not in order: bytes that were on
            their way may be missing, and nobody reads the input any more (a connection was reset).
          trio.ClosedResourceError: `aclose` was called.

        Cancellation: safe; no byte is lost.
        """

    @abstractmethod
    async def send(self, data: Buffer) -> None:
        """Write all of `data` to the input.

        Raises:
          trio.BrokenResourceError: nobody reads the input any more (the process closed it or
            ended); this says nothing about the output.
          trio.ClosedResourceError: `aclose` or `send_eof` was called.
          InputRefusedError: such input does not pass here; the stream is to be closed.

        Cancellation: some, all or none of `data` may have been written.
        """

    @abstractmethod
    async def send_eof(self) -> None:
        """End the input.  A terminal has no such end: there it does nothing.  Idempotent."""

    @abstractmethod
    async def wait(self) -> ExitStatus:
        """Wait for the process to end.  Any number of tasks may wait.  Cancellation: safe."""

    @abstractmethod
    def resize(self, size: TerminalSize) -> None:
        """Set the terminal's size; the foreground process group gets SIGWINCH.

        Does nothing where there is no terminal or the process has ended.
        """

    @abstractmethod
    def send_signal(self, name: str) -> None:
        """Send the signal `name` (``"INT"``, ``"TERM"``, ...) to the process group.

        Does nothing once the process has ended.  A connection is closed by HUP, INT, QUIT and
        TERM, and reset by KILL and ABRT.

        Raises:
          ValueError: there is no such signal.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """End the process and everything it started, politely, then by force; free everything.

        Idempotent.  Cancellation: goes straight to force, and still leaves nothing behind.
        """
