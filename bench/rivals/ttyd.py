"""ttyd (C, libwebsockets)."""

from __future__ import annotations

from contextlib import ExitStack

from bench.rivals.base import (
    TERMINAL,
    Ports,
    Running,
    Subject,
    directory,
    launch,
    needs_program,
    program,
)
from bench.wire import Route, free_port


def _start(stack: ExitStack, _: Ports) -> Running:
    port = free_port()
    link = directory(stack) / "lines"
    command = [program("ttyd") or "ttyd", "-i", "127.0.0.1", "-p", str(port), "-W"]
    process = launch(stack, [*command, "cat", str(link)], port=port)
    route = Route(port, websocket=True, targets=("/ws",), subprotocol="tty")
    return Running([process.pid], lambda: route, extra={"link": link, "dialect": "ttyd"})


TTYD = Subject(
    "ttyd",
    "ttyd",
    frozenset({TERMINAL}),
    _start,
    needs_program("ttyd", "https://github.com/tsl0922/ttyd/releases, or apt install ttyd"),
)
