"""A child on a pseudo-terminal.

The child gets its controlling terminal without code of ours running between fork and exec (which
is unsafe beside threads): it starts as a session leader with the terminal as its standard
descriptors, and as the first step a shell opens the terminal once more.  By Linux's rule, a session
leader without a controlling terminal acquires the first one it opens.  The shell then replaces
itself with the command.  ``/proc/self/fd/0`` names the terminal in any mount namespace.
"""

from __future__ import annotations

import os
import signal
import termios
from collections.abc import Callable
from typing import ClassVar

import trio

from relay.endpoint import Channel, StartError, TerminalSize
from runtimes.local.channels import InputWriter, OutputReader
from runtimes.local.endpoint import Manners, ProcessEndpoint
from runtimes.local.launch import Launch, spawn
from runtimes.process import ProcessHandle

_ACQUIRE_TERMINAL = ("/bin/sh", "-c", ': <>/proc/self/fd/0; exec "$@"', "trunkline")

# asm-generic/termbits.h; `termios` has no name for it.  Backspace erases a whole UTF-8 character.
_IUTF8 = 0o40000


def start_on_terminal(
    launch: Launch,
    size: TerminalSize,
    manners: Manners,
    limiter: trio.CapacityLimiter,
    on_closed: Callable[[ProcessEndpoint], None],
) -> TerminalEndpoint:
    """Run `launch` on a new terminal.  Blocks: call it in a thread.

    Raises:
      StartError: the system refused.
    """
    try:
        master, slave = os.openpty()
    except OSError as error:
        raise StartError(f"no terminal can be opened: {error.strerror}") from error
    try:
        os.set_blocking(master, False)
        attributes = termios.tcgetattr(slave)
        attributes[0] |= _IUTF8
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        if launch.account.uid is not None:
            os.fchown(slave, launch.account.uid, -1)  # else it could not open its own terminal
        termios.tcsetwinsize(slave, (size.rows, size.columns))
        process = spawn(launch, slave, slave, slave, wrapper=_ACQUIRE_TERMINAL)
        try:
            return TerminalEndpoint(process, master, manners, limiter, on_closed)
        except OSError as error:
            process.destroy()
            raise StartError(f"the terminal can't be watched: {error.strerror}") from error
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)


class TerminalEndpoint(ProcessEndpoint):
    """A running child on a terminal.  Owns `master`."""

    _polite_signal: ClassVar[signal.Signals] = signal.SIGHUP

    def __init__(
        self,
        process: ProcessHandle,
        master: int,
        manners: Manners,
        limiter: trio.CapacityLimiter,
        on_closed: Callable[[ProcessEndpoint], None],
    ) -> None:
        self._master = master
        self._output = OutputReader(master, process, manners.linger)
        self._writer = InputWriter(master, process)
        super().__init__(process, {Channel.OUTPUT: self._output}, manners, limiter, on_closed)

    @property
    def _input(self) -> InputWriter:
        return self._writer

    def _close_channels(self) -> None:
        self._output.close()
        self._writer.close()
        os.close(self._master)  # the kernel hangs the terminal up

    def _free_descriptors(self) -> None:
        """Do nothing: hanging up has closed the only one."""

    def _signal_target(self) -> int | None:
        try:
            return os.tcgetpgrp(self._master) or None
        except OSError:  # the terminal is nobody's controlling terminal yet, or any more
            return None

    async def send_eof(self) -> None:
        """Do nothing: a terminal has no end of input."""
        await trio.lowlevel.checkpoint()

    def resize(self, size: TerminalSize) -> None:
        """As `Endpoint.resize`."""
        if not self._closing and self._process.poll() is None:
            termios.tcsetwinsize(self._master, (size.rows, size.columns))
