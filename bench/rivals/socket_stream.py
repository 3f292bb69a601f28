"""The reference of all ratios: bytes between two Trio `SocketStream`, 64 KiB at a time."""

from __future__ import annotations

from contextlib import ExitStack

from bench.rivals.base import Ports, Running, Subject, script
from bench.wire import Route, free_port


def _start(stack: ExitStack, ports: Ports) -> Running:
    port = free_port()
    process = script(stack, "relay_socket_stream.py", port, ports.tcp, port=port)
    return Running([process.pid], lambda: Route(port, websocket=False))


def _start_chain(stack: ExitStack, ports: Ports) -> Running:
    inner, outer = free_port(), free_port()
    first = script(stack, "relay_socket_stream.py", inner, ports.tcp, port=inner)
    second = script(stack, "relay_socket_stream.py", outer, inner, port=outer)
    return Running([first.pid, second.pid], lambda: Route(outer, websocket=False))


SOCKET_STREAM = Subject(
    "socket-stream", "Trio SocketStream relay, 64 KiB", frozenset(), _start, rival=False
)
CHAIN = Subject(
    "two-hops", "two SocketStream relays in a row", frozenset(), _start_chain, rival=False
)
