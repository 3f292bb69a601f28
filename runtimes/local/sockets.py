"""Connections to servers in the ``local`` sandbox: its loopback is that of the machine."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

import trio

from relay.endpoint import SocketTarget, StartError
from runtimes.sockets import SocketEndpoint, connect_to_path, connect_to_port

CONNECT_SECONDS = 10.0
"""How long a server on this machine may take to accept."""


async def connect(
    target: SocketTarget, on_closed: Callable[[SocketEndpoint], None]
) -> SocketEndpoint:
    """Connect to `target`; raises and cancellation as `open_socket`."""
    return SocketEndpoint(await open_socket(target), on_closed)


async def open_socket(
    target: SocketTarget,
    *,
    to_port: Callable[[int], Awaitable[trio.SocketStream]] = connect_to_port,
    to_path: Callable[[str], Awaitable[trio.SocketStream]] = connect_to_path,
) -> trio.SocketStream:
    """Connect to `target`; `to_port` and `to_path` do it where that isn't on this machine itself.

    Raises:
      StartError: it cannot be reached, and why.

    Cancellation: nothing is left open.
    """
    if target.path is not None and not target.path.startswith("/"):
        raise StartError(f"{target.path}: give the absolute path of the socket")
    try:
        with trio.fail_after(CONNECT_SECONDS):
            if target.path is not None:
                return await to_path(target.path)
            return await to_port(target.port or 0)
    except trio.TooSlowError:
        raise StartError(f"{target} does not answer") from None
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise StartError(f"{target}: {reason}") from None
