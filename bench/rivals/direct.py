"""No relay at all: the load generator with itself.  What it reaches here is its own limit."""

from __future__ import annotations

from contextlib import ExitStack

from bench.rivals.base import Ports, Running, Subject
from bench.wire import Route


def _start(_: ExitStack, ports: Ports) -> Running:
    return Running([], lambda: Route(ports.tcp, websocket=False))


DIRECT = Subject("none", "no relay at all", frozenset(), _start, rival=False)
