"""aiohttp: its WebSocket server with its C accelerated masking."""

from __future__ import annotations

from bench.rivals.library import library

AIOHTTP = library("aiohttp", "aiohttp relay", "relay_aiohttp.py", "aiohttp")
