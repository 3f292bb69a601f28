"""The API on a real agent whose sessions have a file system of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import trio
import trio.testing
from quart import Response

from runtimes.agent import Agent
from runtimes.local import LocalRuntime
from sessions.manager import open_manager
from sessions.profiles import Profile
from tests.testing.api_world import World
from tests.testing.memory_store import MemoryStore


@dataclass
class FilesWorld:
    """A session, the API in front of it, and its home as it is on the disk."""

    world: World
    agent: Agent
    session_id: str
    home: Path

    @property
    def session(self) -> str:
        return f"/v1/sessions/{self.session_id}"

    async def call(self, method: str, part: str = "", **options: Any) -> Response:
        """Request ``…/files`` + `part`; keyword arguments besides those of `World.call` are query."""
        own = {k: options.pop(k) for k in ("headers", "data", "json", "bearer") if k in options}
        query = f"?{urlencode(options)}" if options else ""
        return await self.world.call(method, f"{self.session}/files{part}{query}", **own)

    async def tus(
        self, method: str, path: str = "", headers: dict[str, str] | None = None, **options: Any
    ) -> Response:
        """Make a request of the tus protocol to ``…/uploads`` or the address of an upload."""
        url = path or f"{self.session}/uploads"
        return await self.world.call(
            method, url, headers={"Tus-Resumable": "1.0.0", **(headers or {})}, **options
        )


@asynccontextmanager
async def files_world(tmp_path: Path, static_root: Path) -> AsyncIterator[FilesWorld]:
    """Make one; at the end no stream may be left."""
    home = tmp_path / "sandbox" / "home"
    home.mkdir(parents=True)
    runtime = LocalRuntime(file_root=str(tmp_path / "sandbox"), file_home="/home")
    agent = Agent(runtime, software="test")
    with trio.fail_after(60):
        async with open_manager(agent, MemoryStore(), {"default": Profile("default")}) as manager:
            world = World(static_root, real=manager, host=agent)
            session_id = (await world.create())["session_id"]
            yield FilesWorld(world, agent, session_id, home)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert agent.statistics().streams in ({session_id: ()}, {})
