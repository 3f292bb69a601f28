"""A trunk to a real agent within the process, whose links the test cuts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from relay.carrier import Carrier
from relay.client import Trunk, open_trunk
from relay.endpoint import Kind
from relay.errors import DialFailed
from relay.grant import Grant
from relay.limits import StreamLimits
from relay.memory import carrier_pair
from runtimes.agent import Agent
from runtimes.base import SandboxSpec
from runtimes.local import LocalRuntime

SESSION = "the-session"


@dataclass
class CutTrunk:
    """`home` is the session's, on the disk."""

    agent: Agent
    home: Path
    nursery: trio.Nursery
    trunk: Trunk = field(init=False)
    links: int = 0
    refusing: bool = False
    carriers: list[Carrier] = field(default_factory=list)

    async def dial(self) -> Carrier:
        if self.refusing:
            raise DialFailed("not now", permanent=False)
        ours, agents = carrier_pair()
        self.links += 1
        self.carriers = [ours, agents]
        grant = Grant(SESSION, "tester", frozenset({Kind.FILE}))
        self.nursery.start_soon(self.agent.serve_link, agents, grant)
        return ours

    async def cut(self) -> None:
        """Break the link in both directions."""
        for carrier in self.carriers:
            await carrier.aclose()

    async def cut_until_given_up(self) -> None:
        """Break the link, and let the client come back when its streams have been given up."""
        self.refusing = True
        await self.cut()
        with trio.fail_after(20):
            while self.agent.streams(SESSION):
                await trio.sleep(0.01)
        self.refusing = False


@asynccontextmanager
async def open_cut_trunk(tmp_path: Path, *, linger: float = 0.05) -> AsyncIterator[CutTrunk]:
    """Make one; a stream waits `linger` seconds for its client."""
    home = tmp_path / "sandbox" / "home"
    home.mkdir(parents=True)
    runtime = LocalRuntime(file_root=str(tmp_path / "sandbox"), file_home="/home")
    agent = Agent(runtime, software="test", limits=StreamLimits(linger=linger))
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery, agent.open_session(SandboxSpec(SESSION)):
            world = CutTrunk(agent, home, nursery)
            async with open_trunk(world.dial, chance=lambda: 0.0) as trunk:
                world.trunk = trunk
                yield world
            nursery.cancel_scope.cancel()
