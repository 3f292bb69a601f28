"""picows (Cython, asyncio)."""

from __future__ import annotations

from bench.rivals.library import library

PICOWS = library("picows", "picows relay", "relay_picows.py", "picows")
