"""A file stream belongs to its client: when that has left for good, it ends."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from relay.carrier import Carrier
from relay.client import open_trunk
from relay.client_attachment import AttachOptions
from relay.endpoint import FileOperation, Kind
from relay.errors import AttachRefused
from relay.limits import StreamLimits
from relay.memory import carrier_pair
from relay.protocol.messages import FileStart, Start
from relay.protocol.reasons import Refusal
from relay.server import ServerLink
from tests.testing.relay_world import RelayWorld, Shell, open_world

LIMITS = StreamLimits(linger=5.0)
FILE = Start(file=FileStart(operation=FileOperation.READ, path="f"))


def options(kind: Kind = Kind.FILE, **more: Any) -> AttachOptions:
    start = FILE if kind is Kind.FILE else Start()
    wish: dict[str, Any] = {
        "attachment": "attachment-of-it",
        "kind": kind,
        "tag": "t",
        "start": start,
    }
    return AttachOptions(**(wish | more))


async def test_detaching_hangs_up(autojump_clock: object) -> None:
    shell = Shell()
    async with open_world(shell, LIMITS) as world, world.trunk() as trunk:
        attachment = await trunk.attach(options())
        trunk.detach(attachment)
        await world.settle()
        assert shell.endpoints[0].signals == ["HUP"]


async def test_a_full_ring_does_not_keep_it(autojump_clock: object) -> None:
    """What it still gives goes nowhere, so that it can end."""
    shell = Shell()
    async with open_world(shell, LIMITS) as world, world.trunk() as trunk:
        attachment = await trunk.attach(options())
        shell.sources[0].write(bytes(LIMITS.ring_bytes * 3))
        await world.settle()
        assert shell.sources[0].waiting > 0
        trunk.detach(attachment)
        await world.settle()
        assert shell.sources[0].waiting == 0
        shell.sources[0].end()
        await world.settle()
        assert world.host.statistics() == ()
        assert shell.endpoints[0].closed


async def test_after_its_end_it_is_forgotten_with_its_client(autojump_clock: object) -> None:
    shell = Shell()
    async with open_world(shell, LIMITS) as world, world.trunk() as trunk:
        attachment = await trunk.attach(options())
        shell.sources[0].write(b"all")
        shell.sources[0].end()
        assert (await attachment.wait()).code == 0
        await world.settle()
        assert [s.tag for s in world.host.statistics()] == ["t"]
        trunk.detach(attachment)
        await world.settle()
        assert world.host.statistics() == ()
        assert shell.endpoints[0].signals == []


async def test_a_lost_client_has_its_time_to_return(autojump_clock: object) -> None:
    shell = Shell()
    async with open_world(shell, LIMITS) as world:
        carriers: list[Carrier] = []
        away = trio.Event()

        async def dial() -> Carrier:
            if carriers:
                await away.wait()
            ours, theirs = carrier_pair()
            carriers.append(ours)
            world.serve(theirs)
            return ours

        async with open_trunk(dial, chance=lambda: 0.0) as trunk:
            attachment = await trunk.attach(options())
            await carriers[0].aclose()
            await trio.sleep(LIMITS.linger - 1)
            assert shell.endpoints[0].signals == []
            away.set()
            await trio.sleep(1)
            assert attachment.resumes == 1
            away = trio.Event()
            await carriers[-1].aclose()
            await trio.sleep(LIMITS.linger + 0.1)
            assert shell.endpoints[0].signals == ["HUP"]
            shell.sources[0].end()
            await trio.sleep(1)
            away.set()
            with pytest.raises(AttachRefused) as caught:
                await attachment.receive()
            assert caught.value.code is Refusal.GONE


async def test_a_client_that_never_came_back_for_the_answer(autojump_clock: object) -> None:
    """It was cut off while the operation began."""
    shell = Shell()
    entered = trio.Event()
    proceed = trio.Event()

    async def start(request: Any) -> Any:
        entered.set()
        await proceed.wait()
        return shell(request)

    async with open_world(start, LIMITS) as world:
        async with world.raw() as peer:
            await peer.request(kind=Kind.FILE, tag="t", start=FILE)
            await entered.wait()
        proceed.set()
        await world.settle()
        assert shell.endpoints[0].signals == []
        await trio.sleep(LIMITS.linger + 0.1)
        assert shell.endpoints[0].signals == ["HUP"]


async def test_a_client_that_cannot_come_back(autojump_clock: object) -> None:
    """Within the process there is nobody who would resume: the cut is the end."""
    shell = Shell()
    async with open_world(shell, LIMITS) as world:
        ours, theirs = carrier_pair()
        server = ServerLink(theirs, world.host, RelayWorld.grant(), "owner", returns=False)

        async def dial() -> Carrier:
            return ours

        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run)
            async with open_trunk(dial) as trunk:
                await trunk.attach(options())
                nursery.cancel_scope.cancel()
        await world.settle()
        assert shell.endpoints[0].signals == ["HUP"]


async def test_processes_go_on(autojump_clock: object) -> None:
    shell = Shell()
    async with open_world(shell, LIMITS) as world, world.trunk() as trunk:
        for kind, tag in ((Kind.EXEC, "e"), (Kind.PTY, "p")):
            attachment = await trunk.attach(
                options(kind, tag=tag, attachment=f"attachment-of-{tag * 4}")
            )
            trunk.detach(attachment)
        await trio.sleep(100)
        assert [endpoint.signals for endpoint in shell.endpoints] == [[], []]
        assert len(world.host.statistics()) == 2
