"""The whole server inside the test: real sockets, the fake runtime."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from trunkline.sdk.client import Client, open_client
from trunkline.server import serve
from trunkline.settings import Ready, Settings


@dataclass(frozen=True)
class Served:
    """A running server and a client for it."""

    ready: Ready
    token: str
    client: Client


@asynccontextmanager
async def serving(data_dir: Path, **settings: Any) -> AsyncIterator[Ready]:
    """Run a server with its data in `data_dir`; it is cancelled at the end."""
    async with trio.open_nursery() as nursery:
        is_ready = trio.Event()
        announced: list[Ready] = []

        def ready(what: Ready) -> None:
            announced.append(what)
            is_ready.set()

        wish: dict[str, Any] = {"data_dir": data_dir, "port": 0, "runtime": "fake"} | settings
        nursery.start_soon(serve, Settings(**wish), ready)
        with trio.fail_after(30):
            await is_ready.wait()
        yield announced[0]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def served(data_dir: Path, **settings: Any) -> AsyncIterator[Served]:
    """As `serving`, with a client."""
    async with serving(data_dir, **settings) as ready:
        token = (data_dir / "credential").read_text().strip()
        async with open_client(ready.url, token) as client:
            yield Served(ready, token, client)
