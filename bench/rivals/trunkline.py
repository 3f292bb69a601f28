"""Trunkline as its users have it: `trunkline serve` in a process of its own.

`TRUNKLINE` serves the port behind it as a plain WebSocket (`GET /v1/sessions/{id}/tcp/{port}`).
`FORWARD` adds `trunkline forward`: plain TCP at both ends, every connection a stream of one trunk.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import partial

from bench.rivals.base import (
    EXEC,
    FILES,
    TCP,
    TERMINAL,
    WEBSOCKET,
    Ports,
    Running,
    Subject,
    launch,
)
from bench.server import Api, serve
from bench.wire import Route, free_port

TICKETS = 4
USES = 100
"""Connections per ticket, as many as a ticket allows."""


def tickets(api: Api, session: str, port: int, count: int = TICKETS) -> Route:
    """Return the route of a port of a session, good for ``count * USES`` connections."""
    targets = tuple(
        f"/v1/sessions/{session}/tcp/{port}?token={api.ticket(session, ['tcp'], USES)}"
        for _ in range(count)
    )
    return Route(api.port, websocket=True, targets=targets, uses=USES)


def _start(stack: ExitStack, ports: Ports, more: str = "", runtime: str = "local") -> Running:
    server = stack.enter_context(serve(more, runtime))
    session = server.api.create_session()

    def routes(count: int) -> list[Route]:
        return [
            tickets(server.api, server.api.create_session(), ports.tcp, 1) for _ in range(count)
        ]

    return Running(
        [server.pid],
        lambda: tickets(server.api, session, ports.tcp),
        extra={"server": server, "session": session, "routes": routes},
    )


def _start_forward(stack: ExitStack, ports: Ports) -> Running:
    server = stack.enter_context(serve())
    session = server.api.create_session()
    port = free_port()
    process = launch(
        stack,
        [sys.executable, "-m", "trunkline", "forward", session, f"{port}:{ports.tcp}"],
        says=b"-> port",  # asking the port itself would open a stream
        environment={"TRUNKLINE_URL": server.url, "TRUNKLINE_TOKEN": server.token},
    )
    return Running(
        [server.pid, process.pid],
        lambda: Route(port, websocket=False),
        extra={"server": server, "session": session},
    )


TRUNKLINE = Subject(
    "trunkline",
    "Trunkline",
    frozenset({WEBSOCKET, TERMINAL, EXEC, FILES}),
    _start,
    rival=False,
)
FORWARD = Subject(
    "trunkline-forward",
    "Trunkline, both ends (trunkline forward)",
    frozenset({TCP}),
    _start_forward,
    rival=False,
)
TRUNK1 = Subject(
    "trunkline-trunk1",
    "Trunkline, trunk/1 with the SDK",
    frozenset(),
    _start,
    rival=False,
)
SPIN = Subject(
    "trunkline-spin",
    "Trunkline, spin_microseconds = 30",
    frozenset(),
    partial(_start, more="spin_microseconds = 30"),
    rival=False,
)
BUBBLEWRAP = Subject(
    "trunkline-bubblewrap",
    "Trunkline, bubblewrap sandboxes",
    frozenset(),
    partial(_start, runtime="bubblewrap"),
    rival=False,
)
