"""The user's own terminal: raw mode and back, reading and writing without holding anybody up."""

from __future__ import annotations

import errno
import os
import re
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

import trio

from relay.endpoint import TerminalSize

READ_BYTES = 64 * 1024
PIPE_BYTES = 4096
"""A pipe or terminal that is ready to write takes this much without waiting (PIPE_BUF)."""


class Descriptor:
    """A file descriptor that was passed to this program: terminal, pipe or file.

    It is left in blocking mode, because it is shared with other programs.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._pollable: bool | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether a terminal is behind it."""
        return os.isatty(self.number)

    async def read(self) -> bytes:
        """Wait for data and return it; ``b""`` at the end, or when the terminal was hung up.

        Cancellation: safe for terminals, pipes and sockets; for a file, one piece may be lost.
        """
        if await self._wait(trio.lowlevel.wait_readable):
            try:
                return os.read(self.number, READ_BYTES)
            except OSError as error:
                if error.errno == errno.EIO:
                    return b""
                raise
        return await trio.to_thread.run_sync(
            os.read, self.number, READ_BYTES, abandon_on_cancel=True
        )

    async def write_all(self, data: bytes) -> None:
        """Write all of `data`.

        Raises:
          BrokenPipeError: nobody reads it any more; a terminal was hung up.

        Cancellation: some, all or none of it may have been written.
        """
        try:
            await self._write_all(data)
        except OSError as error:
            if error.errno == errno.EIO:
                raise BrokenPipeError(errno.EPIPE, "the terminal is gone") from error
            raise

    async def _write_all(self, data: bytes) -> None:
        if len(data) <= PIPE_BYTES and await self._wait(trio.lowlevel.wait_writable):
            written = os.write(self.number, data)
            data = data[written:]
        if data:
            await trio.to_thread.run_sync(_write_all, self.number, data, abandon_on_cancel=True)

    async def _wait(self, wait: object) -> bool:
        """Wait until it is ready; False if one cannot wait for this kind (a file)."""
        if self._pollable is False:
            return False
        try:
            await wait(self.number)  # type: ignore[operator]  # trio types these for sockets too
        except PermissionError:  # epoll refuses files
            self._pollable = False
            return False
        self._pollable = True
        return True


def _write_all(number: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(number, view) :]


def terminal_size(descriptor: Descriptor) -> TerminalSize | None:
    """Return the size of the terminal; None where there is none or it does not know."""
    try:
        columns, rows = os.get_terminal_size(descriptor.number)
        return TerminalSize(columns, rows)
    except (OSError, ValueError):
        return None


def fresh_screen(size: TerminalSize | None) -> bytes:
    """Return what makes room for a whole screen.

    What the user's terminal shows moves up, out of sight but not out of reach; a full reset would
    forget it.
    """
    rows = size.rows if size is not None else 24
    return b"\x18\x1b[!p\x1b[m\x1b(B\x0f\x1b[%d;1H" % rows + b"\r\n" * rows + b"\x1b[H\x1b[J"


class ModeTracker:
    """Remembers which private modes (DECSET) a program has switched on, to switch them off again.

    Otherwise a terminal stays in the alternate screen, or reports the mouse, after detaching.
    """

    _SET = re.compile(rb"\x1b\[\?([0-9;]{1,60})([hl])")
    _LONGEST = 64
    _LONGEST_MODE = 5
    _DEFAULT_ON = frozenset({7, 8, 12, 25})

    def __init__(self) -> None:
        self._changed: dict[int, bool] = {}
        self._tail = b""

    def feed(self, data: bytes) -> None:
        """Look at output on its way to the terminal."""
        for match in self._SET.finditer(self._tail + data):
            for mode in match[1].split(b";"):
                if 0 < len(mode) <= self._LONGEST_MODE:
                    self._changed[int(mode)] = match[2] == b"h"
        self._tail = (self._tail + data)[-self._LONGEST :]
        if len(self._changed) > 1024:
            self._changed.clear()  # not a terminal program, whatever it is

    def reset(self) -> bytes:
        """Return what brings the terminal back."""
        undo = b"".join(
            b"\x1b[?%d%c" % (mode, b"h" if mode in self._DEFAULT_ON else b"l")
            for mode, on in self._changed.items()
            if on != (mode in self._DEFAULT_ON)
        )
        self._changed.clear()
        return undo + b"\x1b[0m" if undo else b""


class RawTerminal:
    """Puts a terminal into raw mode; leaving brings it back, whatever happened."""

    def __init__(self, descriptor: Descriptor) -> None:
        self._descriptor = descriptor
        self._saved: list[object] | None = None

    def __enter__(self) -> Self:
        if self._descriptor.is_terminal:
            self._saved = termios.tcgetattr(self._descriptor.number)
            tty.setraw(self._descriptor.number, termios.TCSADRAIN)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._saved is not None:
            with suppress(termios.error):  # the terminal is gone
                termios.tcsetattr(self._descriptor.number, termios.TCSADRAIN, self._saved)  # type: ignore[arg-type]  # what tcgetattr gave


def occupy_standard_descriptors() -> None:
    """Put ``/dev/null`` where standard input, output or error is closed.

    Otherwise the next thing to be opened would get its number, and a connection to the server would
    pass for standard input.  To be called before anything is opened.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
        if getattr(sys, name) is None:
            mode = "r" if number == 0 else "w"
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - for good


@contextmanager
def standard_streams() -> Iterator[tuple[Descriptor, Descriptor, Descriptor]]:
    """Give standard input, output and error; Python's own buffers are flushed first."""
    sys.stdout.flush()
    sys.stderr.flush()
    yield Descriptor(0), Descriptor(1), Descriptor(2)
