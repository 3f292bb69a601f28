"""No signal is lost, and none counts twice."""

from __future__ import annotations

import trio
import trio.testing

from relay.wakeup import Wakeup


async def is_set(wakeup: Wakeup) -> bool:
    with trio.move_on_after(0.001) as scope:
        await wakeup.wait()
    return not scope.cancelled_caught


async def test_it_is_remembered_once(autojump_clock: object) -> None:
    wakeup = Wakeup()
    assert not await is_set(wakeup)
    wakeup.set()
    wakeup.set()
    assert await is_set(wakeup)
    assert not await is_set(wakeup)


async def test_it_wakes_who_waits(autojump_clock: object) -> None:
    wakeup = Wakeup()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wakeup.wait)
        await trio.testing.wait_all_tasks_blocked()
        wakeup.set()
    assert not await is_set(wakeup)


async def test_a_cancelled_wait_leaves_it_set(autojump_clock: object) -> None:
    wakeup = Wakeup()
    wakeup.set()
    with trio.CancelScope() as scope:
        scope.cancel()
        await wakeup.wait()
    assert await is_set(wakeup)
