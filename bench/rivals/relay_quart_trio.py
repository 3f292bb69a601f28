"""A WebSocket to TCP relay on Quart-Trio and Hypercorn.  Arguments: PORT TARGET_PORT."""

from __future__ import annotations

import sys

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import websocket
from quart_trio import QuartTrio

PIECE = 64 * 1024


def make_app(target: int) -> QuartTrio:
    """Return the app."""
    app = QuartTrio(__name__)

    @app.websocket("/")
    async def relay() -> None:
        await websocket.accept()
        try:
            async with (
                await trio.open_tcp_stream("127.0.0.1", target) as server,
                trio.open_nursery() as nursery,
            ):

                async def down() -> None:
                    while data := await server.receive_some(PIECE):
                        await websocket.send(data)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(down)
                while True:
                    data = await websocket.receive()
                    await server.send_all(data if isinstance(data, bytes) else data.encode())
        except* (trio.BrokenResourceError, OSError):
            pass  # one side left

    return app


async def main(port: int, target: int) -> None:
    """Serve for ever."""
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.backlog = 1024
    config.websocket_max_message_size = 1 << 26
    await serve(make_app(target), config)


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), int(sys.argv[2]))
