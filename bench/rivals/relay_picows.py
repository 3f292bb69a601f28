"""A WebSocket to TCP relay on picows, by callbacks, with back-pressure.  Arguments: PORT TARGET_PORT."""

from __future__ import annotations

import asyncio  # noqa: TID251 - what this rival runs on
import importlib
import sys
from typing import Any

# Optional, so the type checker is not to look for it.
picows: Any = importlib.import_module("picows")

TARGET = int(sys.argv[2])


class Server(asyncio.Protocol):
    """The connection to what is behind the relay."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.client.server_is_there(self)

    def data_received(self, data: bytes) -> None:
        self.client.websocket.send(picows.WSMsgType.BINARY, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.client.websocket.send_close(1000)
        self.client.websocket.disconnect()

    def pause_writing(self) -> None:
        self.client.websocket.underlying_transport.pause_reading()

    def resume_writing(self) -> None:
        self.client.websocket.underlying_transport.resume_reading()


class Client(picows.WSListener):  # type: ignore[misc]  # of an optional package
    """The WebSocket."""

    def __init__(self) -> None:
        super().__init__()
        self.websocket: Any = None
        self.server: Server | None = None
        self.early: list[bytes] = []
        self.connecting: Any = None

    def on_ws_connected(self, transport: Any) -> None:
        self.websocket = transport
        loop = asyncio.get_running_loop()
        connecting = loop.create_connection(lambda: Server(self), "127.0.0.1", TARGET)
        self.connecting = loop.create_task(connecting)

    def server_is_there(self, server: Server) -> None:
        self.server = server
        server.transport.writelines(self.early)
        self.early.clear()

    def on_ws_frame(self, transport: Any, frame: Any) -> None:
        kind = frame.msg_type
        if kind == picows.WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif kind in (picows.WSMsgType.BINARY, picows.WSMsgType.CONTINUATION):
            data = frame.get_payload_as_bytes()
            if self.server is None:
                self.early.append(data)
            else:
                self.server.transport.write(data)

    def on_ws_disconnected(self, transport: Any) -> None:
        if self.server is not None:
            self.server.transport.close()

    def pause_writing(self) -> None:
        if self.server is not None:
            self.server.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.server is not None:
            self.server.transport.resume_reading()


async def main(port: int) -> None:
    """Serve for ever."""
    server = await picows.ws_create_server(
        lambda _: Client(), "127.0.0.1", port, max_frame_size=1 << 26, backlog=1024
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
