"""The command line as a user runs it: in a pipe, or in a terminal of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import trio

from tests.testing.server_process import trunkline_command

SECONDS = 30.0
"""How long anything that a test waits for may take."""

_WITH_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    " os.execv(sys.argv[1], sys.argv[1:])"
)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended and what it wrote."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        return self.stdout.decode().strip()

    @property
    def errors(self) -> str:
        return self.stderr.decode()


async def run_cli(
    environment: Mapping[str, str],
    *arguments: str,
    stdin: Any = b"",
    seconds: float = SECONDS,
    **options: Any,
) -> Ended:
    """Run `trunkline` to its end.  `stdin` is bytes, or what `subprocess` takes."""
    with trio.fail_after(seconds):
        done = await trio.run_process(
            trunkline_command(*arguments),
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=dict(environment),
            **options,
        )
    ended = Ended(done.returncode, bytes(done.stdout or b""), bytes(done.stderr or b""))
    assert b"Traceback" not in ended.stderr, ended.errors
    return ended


@asynccontextmanager
async def open_cli(
    environment: Mapping[str, str], *arguments: str, **options: Any
) -> AsyncIterator[trio.Process]:
    """Start `trunkline` with pipes; it is killed at the end if it still runs."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process: trio.Process = await trio.lowlevel.open_process(
        trunkline_command(*arguments), env=dict(environment), **{**pipes, **options}
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        with trio.move_on_after(10, shield=True):
            await process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    await stream.aclose()


async def read_until(stream: trio.abc.ReceiveStream, wanted: bytes) -> bytes:
    """Read until `wanted` is there; return all that was read."""
    data = b""
    with trio.fail_after(SECONDS):
        while wanted not in data:
            piece = await stream.receive_some()
            assert piece, f"ended before {wanted!r}: {data!r}"
            data += piece
    return data


class TerminalCli:
    """`trunkline` in a terminal whose other end is the test.  Made by `open_terminal_cli`.

    A TIOCGWINSZ or SIGWINCH works as on a real terminal; nothing answers queries unless the test does.
    """

    def __init__(self, process: subprocess.Popen[bytes], master: int, slave: int) -> None:
        self.process = process
        self._master: int | None = master
        self._slave: int | None = slave
        self.seen = b""
        """All output so far."""
        self._looked = 0

    @property
    def master(self) -> int:
        assert self._master is not None, "the terminal was hung up"
        return self._master

    def attributes(self) -> list[Any]:
        """Return the terminal's settings, as `termios.tcgetattr`."""
        assert self._slave is not None
        return termios.tcgetattr(self._slave)

    def resize(self, columns: int, rows: int) -> None:
        termios.tcsetwinsize(self.master, (rows, columns))

    def close(self) -> None:
        """Hang the terminal up."""
        for descriptor in (self._slave, self._master):
            if descriptor is not None:
                os.close(descriptor)
        self._slave = self._master = None

    async def hang_up(self) -> int:
        """Hang the terminal up; return the exit code."""
        self.close()
        with trio.fail_after(SECONDS):
            return await trio.to_thread.run_sync(self.process.wait, abandon_on_cancel=True)

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def type(self, data: bytes) -> None:
        """Type `data`."""
        while data:
            await trio.lowlevel.wait_writable(self.master)
            data = data[os.write(self.master, data[:1024]) :]

    async def _more(self) -> None:
        await trio.lowlevel.wait_readable(self.master)
        self.seen += os.read(self.master, 65536)

    async def expect(self, pattern: bytes, seconds: float = SECONDS) -> re.Match[bytes]:
        """Wait for output that matches `pattern`, after what was expected before."""
        with trio.move_on_after(seconds):
            while (match := re.compile(pattern, re.DOTALL).search(self.seen, self._looked)) is None:
                await self._more()
            self._looked = match.end()
            return match
        rest = self.seen[self._looked :]
        raise AssertionError(f"{pattern!r} did not come; {rest[-2000:]!r} did")

    async def wait(self, seconds: float = SECONDS) -> int:
        """Wait for the end; return the exit code.  All output is in `seen` then."""
        with trio.fail_after(seconds):
            async with trio.open_nursery() as nursery:

                async def drain() -> None:
                    while True:
                        await self._more()

                nursery.start_soon(drain)
                await trio.to_thread.run_sync(self.process.wait, abandon_on_cancel=True)
                nursery.cancel_scope.cancel()
        os.set_blocking(self.master, False)
        try:
            while data := os.read(self.master, 65536):
                self.seen += data
        except (BlockingIOError, OSError):
            pass
        assert b"Traceback" not in self.seen, self.seen[-3000:]
        assert self.process.returncode is not None
        return self.process.returncode


@contextmanager
def open_terminal_cli(
    environment: Mapping[str, str],
    *arguments: str,
    columns: int = 80,
    rows: int = 24,
    stdin_only: bool = False,
) -> Iterator[TerminalCli]:
    """Start `trunkline` in a new terminal; it is killed at the end if it still runs."""
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (rows, columns))
    process = subprocess.Popen(
        [sys.executable, "-c", _WITH_TERMINAL, *trunkline_command(*arguments)],
        stdin=slave,
        stdout=subprocess.DEVNULL if stdin_only else slave,
        stderr=slave,
        start_new_session=True,
        env=dict(environment),
    )
    terminal = TerminalCli(process, master, slave)
    try:
        yield terminal
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        terminal.close()
