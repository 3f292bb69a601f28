"""HAProxy as a WebSocket proxy, with splice(2): it keeps WebSocket, so it neither frames nor unmasks."""

from __future__ import annotations

from contextlib import ExitStack

from bench.rivals.base import (
    WEBSOCKET,
    Ports,
    Running,
    Subject,
    directory,
    launch,
    needs_program,
    program,
)
from bench.wire import Route, free_port

CONFIG = """\
global
  nbthread 1
  maxconn 4096
defaults
  mode http
  option splice-auto
  timeout connect 10s
  timeout client 120s
  timeout server 120s
  timeout tunnel 1h
listen relay
  bind 127.0.0.1:{port} backlog 1024
  server behind 127.0.0.1:{target}
"""


def _start(stack: ExitStack, ports: Ports) -> Running:
    port = free_port()
    config = directory(stack) / "haproxy.cfg"
    config.write_text(CONFIG.format(port=port, target=ports.websocket))
    command = [program("haproxy") or "haproxy", "-db", "-f", str(config)]
    process = launch(stack, command, port=port)
    return Running([process.pid], lambda: Route(port, websocket=True), keeps_websocket=True)


HAPROXY = Subject(
    "haproxy",
    "HAProxy, splice (WebSocket on both sides)",
    frozenset({WEBSOCKET}),
    _start,
    needs_program("haproxy", "apt install haproxy"),
)
