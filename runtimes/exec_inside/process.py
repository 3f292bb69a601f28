"""What must be there for a sandbox of this kind: something that runs a process inside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from relay.carrier import Buffer
from relay.endpoint import Channel, TerminalSize


class ExecError(Exception):
    """Who runs the processes refused, or failed; `status` is that of its answer, None if none came.

    The message is shown to users.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status

    @property
    def is_missing(self) -> bool:
        """Whether what the request was about does not exist."""
        return self.status == HTTPStatus.NOT_FOUND


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """A process to run inside; `user` empty means the sandbox's own.

    `ends_input` says that its input may be ended before the process is (`Exec.send_eof`).
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    terminal: bool = False
    user: str = ""
    ends_input: bool = True


class Exec(ABC):
    """A process inside, and the connection to its input and output, which it owns.

    At most one task receives and one sends at the same time.
    """

    @abstractmethod
    async def receive(self) -> Sequence[tuple[Channel, Buffer]]:
        """Wait for output and return its pieces; none at the end.  All of a terminal's is OUTPUT.

        Raises:
          trio.BrokenResourceError: the connection broke, or what came is not what should come.
          trio.ClosedResourceError: `aclose` was called.

        Cancellation: safe; no byte is lost.
        """

    @abstractmethod
    async def send(self, data: Buffer) -> None:
        """Write all of `data` to the input.

        Raises:
          trio.BrokenResourceError: the connection broke.
          trio.ClosedResourceError: `aclose` or `send_eof` was called.

        Cancellation: some of `data` may have been written, and nothing more can be sent.
        """

    @abstractmethod
    async def send_eof(self) -> None:
        """End the input.  Raises and cancellation: as `send`."""

    @abstractmethod
    async def exit_code(self) -> int | None:
        """Return the exit code, 128 + N for signal N; None while it is not known (yet).

        Raises:
          ExecError: it cannot be found out.
        """

    @abstractmethod
    async def resize(self, size: TerminalSize) -> None:
        """Set the size of the terminal.  Raises: ExecError."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the connection at once; the process may go on.  Idempotent."""


class ExecHost(ABC):
    """Runs processes in one sandbox."""

    @abstractmethod
    async def start(self, spec: ExecSpec) -> Exec:
        """Run a process and connect to it.

        Raises:
          ExecError: it was refused, or cannot be asked for.

        Cancellation: the process may have been started; its input has ended.
        """
