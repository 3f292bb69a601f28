"""trio-websocket (wsproto)."""

from __future__ import annotations

from bench.rivals.library import library

TRIO_WEBSOCKET = library(
    "trio-websocket", "trio-websocket relay", "relay_trio_websocket.py", "trio_websocket"
)
