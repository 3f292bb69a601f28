"""ws for Node: no compression, back-pressure both ways."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack

from bench.rivals.base import (
    NODE_MODULES,
    SCRIPTS,
    WEBSOCKET,
    Ports,
    Running,
    Subject,
    launch,
    program,
)
from bench.wire import Route, free_port

ADVICE = f"install Node, 'npm install ws' somewhere, and set {NODE_MODULES} to its node_modules"


def _environment() -> dict[str, str]:
    return {"NODE_PATH": os.environ.get(NODE_MODULES, "")}


def _missing() -> str | None:
    node = program("node")
    if node is None:
        return ADVICE
    found = subprocess.run(
        [node, "-e", "require('ws')"],
        env={**os.environ, **_environment()},
        cwd=SCRIPTS,
        capture_output=True,
        check=False,
    )
    return ADVICE if found.returncode else None


def _start(stack: ExitStack, ports: Ports) -> Running:
    port = free_port()
    command = [program("node") or "node", str(SCRIPTS / "relay_node_ws.js"), str(port)]
    command.append(str(ports.tcp))
    process = launch(stack, command, port=port, environment=_environment())
    return Running([process.pid], lambda: Route(port, websocket=True))


NODE_WS = Subject("node-ws", "node ws relay", frozenset({WEBSOCKET}), _start, _missing)
