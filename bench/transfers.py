"""The load generator's clients for terminals, commands and files; and what stands for "no relay" there."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from bench.latency import ZEROS, Trips, echoes
from bench.loadgen import PIECE, Moved, accept, image, terminal_image
from bench.pattern import LINE_BYTES, PERIOD, Check, Image, frame_header, lines, pattern
from bench.wire import TIMEOUT, Route, connect, messages, read_head


class Unexpected(Exception):
    """A server's answer is not what it should be."""


def make_file(path: Path, size: int, *, for_terminal: bool) -> int:
    """Write `size` bytes of the pattern, or of numbered lines, whole lines; return how many."""
    period = lines() if for_terminal else pattern()
    size -= size % LINE_BYTES
    with path.open("wb") as file:
        left = size
        while left:
            piece = period[: min(left, PERIOD)]
            file.write(piece)
            left -= len(piece)
    return size


def shown(size: int) -> int:
    """Return how much a terminal shows of a file of `size` bytes of lines: CR LF for each LF."""
    return size + size // LINE_BYTES


def _follow(pieces: Iterable[bytes | memoryview], whole: Image, expected: int) -> Moved:
    check = Check(whole)
    first: float | None = None
    for piece in pieces:
        if first is None:
            first = time.perf_counter()
        check.feed(piece)
        if check.damage.received >= expected:
            break
    seconds = time.perf_counter() - first if first is not None else 0.0
    return Moved(max(seconds, 1e-6), check.finish(expected))


def local_terminal(_: Connection, path: str, expected: int) -> Moved:
    """Read a terminal on which `cat` shows a file: what the kernel's line discipline gives."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(["cat", path], stdout=theirs, stdin=theirs)
    os.close(theirs)

    def pieces() -> Iterable[bytes]:
        with suppress(OSError):
            while piece := os.read(ours, 65536):
                yield piece

    try:
        return _follow(pieces(), terminal_image(), expected)
    finally:
        os.close(ours)
        process.kill()
        process.wait()


def remote_terminal(_: Connection, route: Route, dialect: str, expected: int) -> Moved:
    """Read what a terminal server shows as soon as somebody comes."""
    sock, rest = connect(route)

    def pieces() -> Iterable[bytes]:
        for message in messages(sock, rest):
            if dialect == "ttyd":
                if message[:1] == b"0":
                    yield message[1:]
            else:
                kind, *values = json.loads(message)
                if kind == "stdout":
                    yield values[0].encode()

    with sock:
        if dialect == "ttyd":
            hello = json.dumps({"AuthToken": "", "columns": 80, "rows": 24}).encode()
            sock.sendall(frame_header(len(hello), ZEROS) + hello)
        return _follow(pieces(), terminal_image(), expected)


def command_output(_: Connection, command: Sequence[str], expected: int) -> Moved:
    """Read the pattern from a command's standard output."""
    with subprocess.Popen(
        list(command), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        number = process.stdout.fileno()

        def pieces() -> Iterable[bytes]:
            while piece := os.read(number, PIECE):
                yield piece

        return _follow(pieces(), image(65536, None, False), expected)


def command_input(_: Connection, command: Sequence[str], size: int) -> float:
    """Write the pattern to a command's standard input; return the seconds until it has ended."""
    began = time.perf_counter()
    with subprocess.Popen(
        list(command), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        view = memoryview(pattern())
        with process.stdin:
            for at in range(0, size, PERIOD):
                process.stdin.write(view[: min(PERIOD, size - at)])
        if process.wait():
            raise Unexpected(f"{command[0]} failed with {process.returncode}")
    return time.perf_counter() - began


def _request(port: int, head: str, token: str) -> tuple[socket.socket, bytes]:
    sock = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
    fields = f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n"
    return sock, f"{head} HTTP/1.1\r\n{fields}".encode()


def http_get(_: Connection, port: int, target: str, token: str, expected: int) -> Moved:
    """Download the pattern."""
    sock, head = _request(port, f"GET {target}", token)
    buffer = bytearray(PIECE)
    view = memoryview(buffer)
    with sock:
        sock.sendall(head + b"\r\n")
        answer, rest = read_head(sock)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise Unexpected(answer[:300].decode(errors="replace"))
        if b"chunked" in answer.lower():
            raise Unexpected("the file came in chunks, which is not measured")

        def pieces() -> Iterable[bytes | memoryview]:
            yield rest
            while count := sock.recv_into(buffer):
                yield view[:count]

        return _follow(pieces(), image(65536, None, False), expected)


def http_put(_: Connection, port: int, target: str, token: str, size: int) -> float:
    """Upload the pattern; return the seconds until the answer."""
    sock, head = _request(port, f"PUT {target}", token)
    view = memoryview(pattern())
    with sock:
        began = time.perf_counter()
        sock.sendall(head + f"Content-Length: {size}\r\n\r\n".encode())
        for at in range(0, size, PERIOD):
            sock.sendall(view[: min(PERIOD, size - at)])
        answer, _rest = read_head(sock)
        seconds = time.perf_counter() - began
    if not answer.startswith((b"HTTP/1.1 201", b"HTTP/1.1 200")):
        raise Unexpected(answer[:300].decode(errors="replace"))
    return seconds


# Echo beside a flood --------------------------------------------------------------------------------


def echo_beside_flood(control: Connection) -> None:
    """Flood the first connection that comes and echo on the second, until told to stop."""
    flooded = accept(control, False, 1)[0]
    over = threading.Event()

    def flood() -> None:
        piece = bytes(65536)
        with suppress(OSError):
            while not over.is_set():
                flooded.sendall(piece)

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        (sock,) = accept(control, False, 1)
        with sock:
            sock.settimeout(0.2)
            while not control.poll():
                try:
                    data = sock.recv(65536)
                except TimeoutError:
                    continue
                if not data:
                    break
                sock.sendall(data)
    finally:
        over.set()
        flooded.close()
        thread.join(TIMEOUT)


def echoes_beside_flood(control: Connection, route: Route, seconds: float) -> Trips:
    """Read a flood on one connection and measure echoes on another."""
    sock, _ = connect(route)
    over = threading.Event()

    def drain() -> None:
        buffer = bytearray(PIECE)
        with suppress(OSError):
            while not over.is_set() and sock.recv_into(buffer):
                pass

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        time.sleep(0.2)  # until the flood has filled what there is to fill
        return echoes(control, route, 1, seconds)
    finally:
        over.set()
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        thread.join(TIMEOUT)
        sock.close()
