"""A client of the cloudshell-fog terminal that shares no code with the server.

It does what the reference's own JavaScript does: ``new WebSocket(ws_url + "?token=" + token)``, JSON text
frames, base64.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

SECONDS = 20.0


class FogClient:
    """One open terminal.  Made by `open_fog`."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self.output = b""
        self.frames = 0
        self._looked = 0

    def type(self, data: bytes) -> None:
        encoded = base64.b64encode(data).decode()
        self.websocket.send(json.dumps({"type": "stdin", "data_b64": encoded}))

    def resize(self, columns: int, rows: int) -> None:
        self.websocket.send(json.dumps({"type": "resize", "cols": columns, "rows": rows}))

    def receive(self, seconds: float = SECONDS) -> dict[str, Any]:
        """Return the next frame; see that it is one of the reference's two, to the letter."""
        message = self.websocket.recv(timeout=seconds)
        assert isinstance(message, str), "a binary message"
        frame: dict[str, Any] = json.loads(message)
        self.frames += 1
        match frame.get("type"):
            case "stdout":
                assert set(frame) == {"type", "data_b64"}
                data = base64.b64decode(frame["data_b64"], validate=True)
                assert data, "an empty frame"
                self.output += data
            case "exit":
                assert set(frame) == {"type", "code"}
                assert type(frame["code"]) is int
            case _:
                raise AssertionError(f"an unknown frame: {message[:200]}")
        return frame

    def expect(self, pattern: bytes, seconds: float = SECONDS) -> re.Match[bytes]:
        """Wait for output that matches `pattern`, after what was expected before."""
        deadline = time.monotonic() + seconds
        while (match := re.compile(pattern, re.DOTALL).search(self.output, self._looked)) is None:
            try:
                frame = self.receive(deadline - time.monotonic())
            except TimeoutError:
                rest = self.output[self._looked :]
                raise AssertionError(f"{pattern!r} did not come; {rest[-1000:]!r} did") from None
            assert frame["type"] == "stdout", f"{frame} before {pattern!r}"
        self._looked = match.end()
        return match

    def wait_exit(self) -> int:
        """Return the code of the exit frame, reading on to it."""
        while (frame := self.receive())["type"] != "exit":
            pass
        code: int = frame["code"]
        return code


@contextmanager
def open_fog(ws_url: str, token: str | None, **options: Any) -> Iterator[FogClient]:
    """Attach; `token` None puts none into the URL."""
    url = ws_url if token is None else f"{ws_url}?token={token}"
    settings: dict[str, Any] = {
        "compression": None,
        "open_timeout": SECONDS,
        "close_timeout": SECONDS,
        "max_size": None,
        "proxy": None,
    }
    with connect(url, **settings | options) as websocket:
        yield FogClient(websocket)


def refusal(ws_url: str, token: str | None, **options: Any) -> tuple[int, str]:
    """Attach, expecting that the server refuses; return its status and text."""
    try:
        with open_fog(ws_url, token, **options):
            pass
    except InvalidStatus as error:
        response = error.response
        return response.status_code, (response.body or b"").decode()
    raise AssertionError("the server let us in")
