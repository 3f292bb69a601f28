"""terminado (Tornado): Jupyter's terminals."""

from __future__ import annotations

from contextlib import ExitStack

from bench.rivals.base import (
    TERMINAL,
    Ports,
    Running,
    Subject,
    directory,
    needs_module,
    script,
)
from bench.wire import Route, free_port


def _start(stack: ExitStack, _: Ports) -> Running:
    port = free_port()
    link = directory(stack) / "lines"
    process = script(stack, "relay_terminado.py", port, "cat", link, port=port)
    route = Route(port, websocket=True, targets=("/ws",))
    return Running([process.pid], lambda: route, extra={"link": link, "dialect": "terminado"})


TERMINADO = Subject(
    "terminado",
    "terminado",
    frozenset({TERMINAL}),
    _start,
    needs_module("terminado", "tornado"),
)
