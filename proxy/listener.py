"""Opening the port."""

from __future__ import annotations

import errno
import socket

import trio

BACKLOG = 1024
"""Connections the kernel holds for us between two accepts."""

_ATTEMPTS = 10
"""How often a free port is looked for that is free on all addresses of the host."""


class ListenError(Exception):
    """The port cannot be opened; the message says why and what to do."""


async def open_listeners(host: str, port: int) -> list[trio.SocketListener]:
    """Listen on `port` on every address of `host`; port 0 takes one that is free on all of them.

    Raises:
      ListenError: it cannot be done, and why.
    """
    for _ in range(_ATTEMPTS):
        first = await _open(host, port)
        if port or len(first) == 1:
            return first
        # Each address was given a port of its own; they must share one.
        shared = bound_port(first)
        for listener in first:
            await listener.aclose()
        try:
            return await _open(host, shared)
        except ListenError:
            continue
    raise ListenError(f"no port is free on all addresses of {host}; choose one with --port")


async def _open(host: str, port: int) -> list[trio.SocketListener]:
    try:
        return list(await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG))
    except socket.gaierror as error:
        raise ListenError(
            f"cannot listen on {host}: no such host ({error.strerror}); check --host"
        ) from error
    except OSError as error:
        raise ListenError(_explain(host, port, error)) from error


def _explain(host: str, port: int, error: OSError) -> str:
    where = f"cannot listen on port {port} of {host}: "
    match error.errno:
        case errno.EADDRINUSE:
            return where + "it is in use; stop what uses it, or choose another with --port"
        case errno.EACCES:
            return where + "not permitted; choose a port above 1023 with --port"
        case errno.EADDRNOTAVAIL:
            return where + "this machine has no such address; check --host"
        case _:
            return where + (error.strerror or str(error))


def bound_port(listeners: list[trio.SocketListener]) -> int:
    """Return the port that `listeners` are bound to."""
    port: int = listeners[0].socket.getsockname()[1]
    return port
