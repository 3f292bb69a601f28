"""A TCP relay as anybody would write it with Trio.  Arguments: PORT TARGET_PORT."""

from __future__ import annotations

import sys
from functools import partial

import trio

PIECE = 64 * 1024


async def _pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    while data := await source.receive_some(PIECE):
        await sink.send_all(data)
    await sink.send_eof()


async def _relay(target: int, client: trio.SocketStream) -> None:
    try:
        async with (
            await trio.open_tcp_stream("127.0.0.1", target) as server,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(_pump, client, server)
            nursery.start_soon(_pump, server, client)
    except* (trio.BrokenResourceError, OSError):
        pass  # one side left


async def main(port: int, target: int) -> None:
    """Serve for ever."""
    await trio.serve_tcp(partial(_relay, target), port, host="127.0.0.1", backlog=1024)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), int(sys.argv[2]))
