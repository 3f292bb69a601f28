"""A child on three pipes: standard input, output and error, kept apart."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import trio

from relay.endpoint import Channel, StartError, TerminalSize
from runtimes.local.channels import InputWriter, OutputReader, discard
from runtimes.local.endpoint import Manners, ProcessEndpoint
from runtimes.local.launch import Launch, spawn
from runtimes.process import ProcessHandle

# Linux gives a pipe 64 KiB.  More lets a flood go on while we serve others; but all pipes of a
# user share 64 MiB (pipe-user-pages-soft in pipe(7)) before new ones become tiny.
OUTPUT_PIPE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class PipeEnds:
    """Our ends of the three pipes."""

    stdin: int
    stdout: int
    stderr: int


def start_on_pipes(
    launch: Launch,
    manners: Manners,
    limiter: trio.CapacityLimiter,
    on_closed: Callable[[ProcessEndpoint], None],
) -> PipeEndpoint:
    """Run `launch` on three new pipes.  Blocks: call it in a thread.

    Raises:
      StartError: the system refused.
    """
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        try:
            ends = []
            for reads in (True, False, False):  # whether the child reads
                reader, writer = os.pipe()
                mine, its = (writer, reader) if reads else (reader, writer)
                ours.callback(os.close, mine)
                theirs.callback(os.close, its)
                os.set_blocking(mine, False)
                ends.append((mine, its))
        except OSError as error:
            raise StartError(f"no pipe can be opened: {error.strerror}") from error
        (stdin, its_stdin), (stdout, its_stdout), (stderr, its_stderr) = ends
        with contextlib.suppress(PermissionError):  # the user's share is used up: 64 KiB will do
            fcntl.fcntl(stdout, fcntl.F_SETPIPE_SZ, OUTPUT_PIPE_BYTES)
        process = spawn(launch, its_stdin, its_stdout, its_stderr)
        try:
            ends_of_ours = PipeEnds(stdin, stdout, stderr)
            endpoint = PipeEndpoint(process, ends_of_ours, manners, limiter, on_closed)
        except OSError as error:
            process.destroy()
            raise StartError(f"the pipes can't be watched: {error.strerror}") from error
        ours.pop_all()
        return endpoint


class PipeEndpoint(ProcessEndpoint):
    """A running child on pipes.  Owns `ends`."""

    _polite_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(
        self,
        process: ProcessHandle,
        ends: PipeEnds,
        manners: Manners,
        limiter: trio.CapacityLimiter,
        on_closed: Callable[[ProcessEndpoint], None],
    ) -> None:
        self._ends = ends
        self._writer: InputWriter | None = InputWriter(ends.stdin, process)
        outputs = {
            Channel.OUTPUT: OutputReader(ends.stdout, process, manners.linger),
            Channel.ERROR: OutputReader(ends.stderr, process, manners.linger),
        }
        super().__init__(process, outputs, manners, limiter, on_closed)

    @property
    def _input(self) -> InputWriter | None:
        return self._writer

    def _close_channels(self) -> None:
        self._close_input()
        for output in self._outputs.values():
            output.close()

    def _free_descriptors(self) -> None:
        os.close(self._ends.stdout)
        os.close(self._ends.stderr)

    async def _ask_to_end(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(discard, self._ends.stdout)
            nursery.start_soon(discard, self._ends.stderr)
            await super()._ask_to_end()
            nursery.cancel_scope.cancel()

    def _close_input(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            os.close(self._ends.stdin)

    async def send_eof(self) -> None:
        """As `Endpoint.send_eof`.  Idempotent."""
        await trio.lowlevel.checkpoint()
        self._close_input()

    def resize(self, size: TerminalSize) -> None:
        """Do nothing: there is no terminal."""
