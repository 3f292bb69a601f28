"""A WebSocket to TCP relay on aiohttp.  Arguments: PORT TARGET_PORT."""

from __future__ import annotations

import asyncio  # noqa: TID251 - what this rival runs on
import importlib
import sys
from contextlib import suppress
from typing import Any

# Optional, so the type checker is not to look for it.
aiohttp: Any = importlib.import_module("aiohttp")
web: Any = importlib.import_module("aiohttp.web")

PIECE = 64 * 1024


def make_app(target: int) -> Any:
    """Return the app."""

    async def relay(request: Any) -> Any:
        websocket = web.WebSocketResponse(compress=False, max_msg_size=1 << 26, autoping=True)
        await websocket.prepare(request)
        reader, writer = await asyncio.open_connection("127.0.0.1", target)

        async def down() -> None:
            with suppress(ConnectionError, RuntimeError):
                while data := await reader.read(PIECE):
                    await websocket.send_bytes(data)
                await websocket.close()

        task = asyncio.create_task(down())
        try:
            async for message in websocket:
                writer.write(message.data)
                await writer.drain()
        except ConnectionError:
            pass  # one side left
        finally:
            task.cancel()
            writer.close()
        return websocket

    app = web.Application()
    app.router.add_get("/", relay)
    return app


if __name__ == "__main__":
    web.run_app(
        make_app(int(sys.argv[2])),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        print=None,
        backlog=1024,
        access_log=None,
    )
