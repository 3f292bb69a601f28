"""websockify (PyPI), with numpy: it unmasks with that where it is there.  A process per connection."""

from __future__ import annotations

from contextlib import ExitStack

from bench.rivals.base import (
    WEBSOCKET,
    Ports,
    Running,
    Subject,
    launch,
    needs_module,
    program,
)
from bench.wire import Route, free_port


def _start(stack: ExitStack, ports: Ports) -> Running:
    port = free_port()
    command = [program("websockify") or "websockify", f"127.0.0.1:{port}", f"127.0.0.1:{ports.tcp}"]
    process = launch(stack, command, port=port)
    return Running([process.pid], lambda: Route(port, websocket=True))


WEBSOCKIFY = Subject(
    "websockify",
    "websockify with numpy",
    frozenset({WEBSOCKET}),
    _start,
    needs_module("websockify", "numpy"),
)
