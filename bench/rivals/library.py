"""Relays of ours on other people's libraries: each a short script, run in this Python."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from bench.rivals.base import (
    WEBSOCKET,
    Ports,
    Running,
    Subject,
    needs_module,
    script,
)
from bench.wire import Route, free_port


def library(name: str, title: str, file: str, *modules: str) -> Subject:
    """Return the subject whose relay is `file`, started with ``PORT TARGET_PORT``."""

    def start(stack: ExitStack, ports: Ports) -> Running:
        port = free_port()
        process = script(stack, file, port, ports.tcp, port=port)
        return Running([process.pid], lambda: Route(port, websocket=True))

    starter: Callable[[ExitStack, Ports], Running] = start
    return Subject(name, title, frozenset({WEBSOCKET}), starter, needs_module(*modules))
