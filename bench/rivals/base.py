"""What a rival is: how to tell whether it is installed, how to start it, and where it then is."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.wire import Route, StartFailed

READY_SECONDS = 30.0
SCRIPTS = Path(__file__).parent
NODE_MODULES = "TRUNKLINE_BENCH_NODE_MODULES"
"""Where npm put what the bench needs (a directory `node_modules`)."""

TCP = "tcp"
"""Carries a TCP connection for a client that speaks plain TCP."""
WEBSOCKET = "websocket"
"""Carries a TCP connection for a client that speaks WebSocket (or keeps WebSocket on both sides)."""
TERMINAL = "terminal"
EXEC = "exec"
FILES = "files"


@dataclass(frozen=True)
class Ports:
    """The ports behind every relay."""

    tcp: int
    websocket: int


@dataclass
class Running:
    """A subject that is ready.

    `route` gives where its clients connect, anew for each measurement (one-use tickets).
    `keeps_websocket`: it passes WebSocket through, so what is behind it speaks it too.
    """

    pids: list[int]
    route: Callable[[], Route] | None = None
    keeps_websocket: bool = False
    extra: dict[str, object] = field(default_factory=dict)
    """What the flows of one kind need to know besides."""


@dataclass(frozen=True)
class Subject:
    """Something that is measured.

    `missing` tells what is not installed and how to get it, or None.  `start` starts it; what is put on
    the stack ends it.
    """

    name: str
    title: str
    roles: frozenset[str]
    start: Callable[[ExitStack, Ports], Running]
    missing: Callable[[], str | None] = lambda: None
    rival: bool = True


def needs_module(*names: str) -> Callable[[], str | None]:
    """Return a `Subject.missing` for Python packages."""

    def missing() -> str | None:
        gone = [name for name in names if importlib.util.find_spec(name) is None]
        return f"pip install {' '.join(gone)}" if gone else None

    return missing


def needs_program(name: str, advice: str) -> Callable[[], str | None]:
    """Return a `Subject.missing` for a program."""
    return lambda: None if program(name) else advice


def program(name: str) -> str | None:
    """Return the path of a program: beside this Python, on the PATH, or in sbin."""
    here = str(Path(sys.executable).parent)
    path = os.pathsep.join((here, os.environ.get("PATH", ""), "/usr/sbin"))
    return shutil.which(name, path=path)


def directory(stack: ExitStack) -> Path:
    """Return a temporary directory that goes with the stack."""
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trunkline-bench-")))


def launch(
    stack: ExitStack,
    command: Sequence[str],
    *,
    port: int | None = None,
    says: bytes | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own; it is ended with the stack.

    With `port`, waits until something listens there; with `says`, until it says so.

    Raises:
      StartFailed: it ended, or is not ready in time.
    """
    log = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
    process = subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    stack.callback(end, process)
    deadline = time.monotonic() + READY_SECONDS
    while port is not None or says is not None:
        if process.poll() is not None or time.monotonic() > deadline:
            log.seek(0)
            said = log.read()[-500:].decode(errors="replace").strip()
            raise StartFailed(f"{Path(command[0]).name} is not ready: {said}")
        if says is not None:
            log.seek(0)
            if says in log.read():
                break
        elif port is not None and _listens(port):
            break
        time.sleep(0.02)
    return process


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def end(process: subprocess.Popen[bytes], seconds: float = 5.0) -> None:
    """End a process: politely, then its whole group by force."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()


def script(
    stack: ExitStack, name: str, *arguments: object, port: int | None
) -> subprocess.Popen[bytes]:
    """Start one of our relay scripts in this Python; see `launch`."""
    # -P: modules here are called like the libraries that the scripts import.
    command = [sys.executable, "-P", str(SCRIPTS / name), *map(str, arguments)]
    return launch(stack, command, port=port)
