"""Processes of the load generator: each runs one function at a time, on command.

They are started once and reused, so that starting Python is never part of what is measured.  A function
gets the worker's control connection as its first argument; functions that serve until told to stop
watch it.
"""

from __future__ import annotations

import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from socket import socketpair
from typing import Any, Self

STOP = "stop"
END_SECONDS = 5.0


class WorkerFailed(Exception):
    """A function raised; the message is its last line, `report` the traceback."""

    def __init__(self, message: str, report: str = "") -> None:
        super().__init__(message)
        self.report = report


class Worker:
    """A process; a context manager."""

    def __init__(self) -> None:
        ours, theirs = socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.workers", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
            )
        self._control = Connection(ours.detach())
        self.pid = self._process.pid
        self._busy = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._control.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def start(self, function: Callable[..., Any], *arguments: object) -> None:
        """Let the process run ``function(control, *arguments)``.

        Raises:
          WorkerFailed: the process has ended.
        """
        try:
            self._control.send((function, arguments))
        except BrokenPipeError:
            raise WorkerFailed("a process of the load generator ended") from None
        self._busy = True

    def stop(self) -> None:
        """Ask a function that serves to end."""
        with suppress(BrokenPipeError):  # it has ended
            self._control.send(STOP)

    def result(self, seconds: float) -> Any:
        """Wait for what the function returns.

        Raises:
          WorkerFailed: it raised, or took longer than `seconds` (then the process is ended).
        """
        if not self._control.poll(seconds):
            self._process.kill()
            raise WorkerFailed(f"the load generator did not finish within {seconds:.0f} s")
        try:
            good, value = self._control.recv()
            self._busy = False
        except (EOFError, ConnectionError):
            raise WorkerFailed("a process of the load generator ended") from None
        if not good:
            raise WorkerFailed(*value)
        return value

    def settle(self, seconds: float) -> None:
        """After a failure: wait until the process is idle.

        Raises:
          WorkerFailed: it is not within `seconds`.
        """
        if self._busy:
            self.stop()
            try:
                self.result(seconds)
            except WorkerFailed:
                if self._process.poll() is not None:
                    raise

    def call(self, function: Callable[..., Any], *arguments: object, seconds: float = 30) -> Any:
        """`start`, and wait for the `result`."""
        self.start(function, *arguments)
        return self.result(seconds)


def _serve(control: Connection) -> None:
    while True:
        try:
            command = control.recv()
        except EOFError:
            return
        if command == STOP:
            continue  # it came after the function had ended by itself
        function, arguments = command
        try:
            answer = (True, function(control, *arguments))
        except Exception as error:  # noqa: BLE001 - who asked gets it
            cause: BaseException = error
            while isinstance(cause, BaseExceptionGroup):
                cause = cause.exceptions[0]
            text = f"{type(cause).__name__}: {cause}"
            answer = (False, (text, traceback.format_exc()))
        try:
            control.send(answer)
        except BrokenPipeError:
            return


if __name__ == "__main__":
    try:
        _serve(Connection(int(sys.argv[1])))
    except KeyboardInterrupt:
        sys.exit(130)
