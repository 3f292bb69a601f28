"""A WebSocket to TCP relay on trio-websocket.  Arguments: PORT TARGET_PORT."""

from __future__ import annotations

import sys
from functools import partial

import trio
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

PIECE = 64 * 1024
MESSAGE_BYTES = 1 << 26


async def _relay(target: int, request: WebSocketRequest) -> None:
    try:
        websocket = await request.accept()
        async with (
            await trio.open_tcp_stream("127.0.0.1", target) as server,
            trio.open_nursery() as nursery,
        ):

            async def down() -> None:
                while data := await server.receive_some(PIECE):
                    await websocket.send_message(data)
                nursery.cancel_scope.cancel()

            nursery.start_soon(down)
            while True:
                data = await websocket.get_message()
                await server.send_all(data if isinstance(data, bytes) else data.encode())
    except* (ConnectionClosed, trio.BrokenResourceError, OSError):
        pass  # one side left


async def main(port: int, target: int) -> None:
    """Serve for ever."""
    await serve_websocket(
        partial(_relay, target), "127.0.0.1", port, None, max_message_size=MESSAGE_BYTES
    )


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), int(sys.argv[2]))
