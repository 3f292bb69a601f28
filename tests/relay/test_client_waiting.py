"""Waiting for a trunk to be there, and for it to be over."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from relay.carrier import Carrier
from relay.client import open_trunk
from relay.errors import AttachmentClosed, DialFailed
from relay.memory import carrier_pair
from relay.protocol.reasons import CloseReason
from tests.testing.endpoints import exec_endpoint
from tests.testing.relay_world import open_world


async def test_who_waits_is_told_of_the_link(autojump_clock: object) -> None:
    let_in = trio.Event()
    async with open_world(lambda _: exec_endpoint()) as world:

        async def dial() -> Carrier:
            await let_in.wait()
            ours, theirs = carrier_pair()
            world.serve(theirs)
            return ours

        async with open_trunk(dial) as trunk:
            with trio.move_on_after(1) as scope:
                await trunk.wait_connected()
            assert scope.cancelled_caught
            let_in.set()
            await trunk.wait_connected()
            with trio.move_on_after(1) as scope:
                await trunk.wait_over()
            assert scope.cancelled_caught


async def test_who_waits_is_told_why_it_is_over(autojump_clock: object) -> None:
    async def dial() -> Carrier:
        raise DialFailed("not here", permanent=True, reason=CloseReason.SESSION_ENDED)

    async with open_trunk(dial) as trunk:
        for wait in (trunk.wait_connected, trunk.wait_over, trunk.wait_over):
            with pytest.raises(AttachmentClosed, match="not here") as caught:
                await wait()
            assert caught.value.reason is CloseReason.SESSION_ENDED


async def test_closing_is_the_end_too(autojump_clock: object) -> None:
    async def dial() -> Carrier:
        await trio.sleep_forever()
        raise AssertionError

    async with open_trunk(dial) as trunk, trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(AttachmentClosed) as caught:
                await trunk.wait_over()
            assert caught.value.reason is CloseReason.DETACHED

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        trunk.close()
