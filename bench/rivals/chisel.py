"""chisel (Go): TCP ports over SSH over one WebSocket; against `trunkline forward`."""

from __future__ import annotations

from contextlib import ExitStack

from bench.rivals.base import (
    TCP,
    Ports,
    Running,
    Subject,
    launch,
    needs_program,
    program,
)
from bench.wire import Route, free_port


def _start(stack: ExitStack, ports: Ports) -> Running:
    chisel = program("chisel") or "chisel"
    server, port = free_port(), free_port()
    outer = launch(
        stack, [chisel, "server", "--host", "127.0.0.1", "--port", str(server)], port=server
    )
    forwarding = f"127.0.0.1:{port}:127.0.0.1:{ports.tcp}"
    inner = launch(stack, [chisel, "client", f"127.0.0.1:{server}", forwarding], port=port)
    return Running([outer.pid, inner.pid], lambda: Route(port, websocket=False))


CHISEL = Subject(
    "chisel",
    "chisel",
    frozenset({TCP}),
    _start,
    needs_program("chisel", "https://github.com/jpillora/chisel/releases"),
)
