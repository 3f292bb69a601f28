from __future__ import annotations

import time
from typing import Any

import pytest
import trio

from relay.endpoint import TerminalSize
from relay.protocol.ring import ReplayRing
from relay.screen import ScreenKeeper, Snapshot, Terminal, keeper
from relay.screen.log import TerminalLog
from tests.testing.terminal_output import rows_of, text_of

SIZE = TerminalSize(40, 5)
RING = 128 * 1024


class World:
    """A ring with its log, written to as a stream does."""

    def __init__(self, capacity: int = RING, size: TerminalSize = SIZE) -> None:
        self.ring = ReplayRing(capacity)
        self.log = TerminalLog(size)
        self.keeper = ScreenKeeper(self.ring, self.log)

    def write(self, data: bytes) -> None:
        dropped = len(data) - self.ring.room(self.ring.start)
        if dropped > 0:
            self.log.dropping(self.ring.read(self.ring.start, dropped))
        self.ring.append(data)

    def resize(self, size: TerminalSize) -> None:
        self.log.resized(self.ring.end, size)

    async def shown(self) -> tuple[Snapshot, Terminal]:
        snapshot = await self.keeper.snapshot()
        assert snapshot is not None
        terminal = Terminal(snapshot.size)
        terminal.feed(snapshot.data)
        return snapshot, terminal


async def test_a_snapshot_and_the_difference() -> None:
    world = World()
    world.write(b"one\r\ntwo")
    snapshot, terminal = await world.shown()
    assert (snapshot.at, snapshot.size, snapshot.is_patchy) == (8, SIZE, False)
    assert rows_of(terminal)[:2] == ["one", "two"]
    world.write(b" three")
    snapshot, terminal = await world.shown()
    assert snapshot.at == 14
    assert rows_of(terminal)[:2] == ["one", "two three"]
    assert world.keeper.statistics().parsed == 14
    assert world.keeper.statistics().snapshots == 2


async def test_nothing_is_parsed_until_somebody_asks() -> None:
    world = World()
    world.write(b"x" * 1000)
    statistics = world.keeper.statistics()
    assert (statistics.parsed, statistics.snapshots, statistics.seconds) == (0, 0, 0.0)
    assert world.keeper._terminal is None


async def test_what_has_left_the_ring_since_is_still_known() -> None:
    world = World()
    world.write(b"first line\r\n")
    await world.shown()
    for n in range(20):
        world.write(b"%d\r\n" % n)
    _, terminal = await world.shown()
    assert text_of(terminal.main.history_lines()[0].cells) == "first line"


async def test_sizes_count_from_where_they_came() -> None:
    world = World(size=TerminalSize(10, 4))
    world.write(b"0123456789abcde\r\n")
    world.resize(TerminalSize(20, 4))
    world.write(b"0123456789abcde")
    snapshot, terminal = await world.shown()
    assert snapshot.size == TerminalSize(20, 4)
    assert rows_of(terminal)[:2] == ["0123456789abcde", "0123456789abcde"]
    world.resize(TerminalSize(30, 6))  # without a byte since
    snapshot, _ = await world.shown()
    assert snapshot.size == TerminalSize(30, 6)


async def test_modes_that_were_set_by_bytes_that_are_gone() -> None:
    world = World()
    world.write(b"$ htop\r\n\x1b[?1049h\x1b[?1h\x1b[?1002h\x1b[?25l")
    for n in range(4 * RING // 40):
        world.write(b"\x1b[%d;%dHprocess %06d has some text" % (n % 5 + 1, n % 7 + 1, n))
    snapshot, terminal = await world.shown()
    assert terminal.is_alternate
    assert terminal.modes.changed() == {1: True, 1002: True, 25: False}
    assert snapshot.is_patchy, "parts of the screen may be missing"
    world.write(b"\x1b[2J\x1b[Hall of it drawn anew")
    snapshot, terminal = await world.shown()
    assert not snapshot.is_patchy
    assert rows_of(terminal)[0] == "all of it drawn anew"


async def test_the_beginning_of_what_is_left_is_not_taken_for_text() -> None:
    world = World(capacity=100)
    world.write(b"x" * 95 + b"\x1b[38;2;100;100;100mgrey\r\nwhole line\r\n")
    assert world.ring.read(world.ring.start, 3) != b"\x1b[3"
    _, terminal = await world.shown()
    assert "whole line" in rows_of(terminal)
    assert not any("100" in row for row in rows_of(terminal))


async def test_a_flood_is_skipped_and_costs_little() -> None:
    world = World(capacity=1024 * 1024)
    world.write(b"y\r\n" * 340_000)
    began = time.process_time()
    snapshot, terminal = await world.shown()
    assert time.process_time() - began < 5.0
    assert snapshot.at == world.ring.end
    assert rows_of(terminal) == ["y", "y", "y", "y", ""]
    assert len(terminal.main.history_lines()) == 1000
    assert world.keeper.statistics().skipped > 1_000_000


async def test_a_flood_that_goes_on_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast the ring runs, the snapshot is at an offset that it still has."""
    world = World()
    lines = 0

    def flood() -> None:
        nonlocal lines
        for _ in range(3 * RING // 12):
            world.write(b"line %05d\r\n" % lines)
            lines += 1

    flood()
    original = ScreenKeeper._work

    def work(self: ScreenKeeper, *args: Any, **options: Any) -> Snapshot:
        snapshot = original(self, *args, **options)
        if not options.get("in_place"):
            trio.from_thread.run_sync(flood)
        return snapshot

    monkeypatch.setattr(ScreenKeeper, "_work", work)
    snapshot, terminal = await world.shown()
    assert snapshot.at == world.ring.end >= world.ring.start
    assert rows_of(terminal)[:4] == [f"line {n:05}" for n in range(lines - 4, lines)]
    assert world.keeper.statistics().snapshots == 1


async def test_who_asks_at_the_same_time_shares_the_work() -> None:
    world = World(capacity=1024 * 1024)
    world.write(b"\x1b[1mbold\x1b[m and plain\r\n" * 10_000)
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(world.shown)
    assert world.keeper.statistics().snapshots == 5
    assert world.keeper.statistics().parsed <= world.ring.end


async def test_when_it_takes_too_long_there_is_none_and_then_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeper, "PATIENCE", 0.05)
    world = World(capacity=1024 * 1024)
    world.write(b"\x1b[1;1Hx\x1b[K" * 80_000)
    with trio.fail_after(20):
        assert await world.keeper.snapshot() is None
        assert world.keeper.statistics().failures == 1
        done = world.keeper.statistics().parsed
        assert 0 < done < world.ring.end
        monkeypatch.setattr(keeper, "PATIENCE", 60.0)
        snapshot, _ = await world.shown()
    assert snapshot.at == world.ring.end
    assert world.keeper.statistics().parsed == world.ring.end, "what was done was not done again"


async def test_cancelling_ends_the_thread_and_harms_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeper, "PATIENCE", 60.0)
    world = World(capacity=1024 * 1024)
    world.write(b"\x1b[1;1Hx\x1b[K" * 80_000)
    with trio.move_on_after(0.02) as scope:
        await world.keeper.snapshot()
    assert scope.cancelled_caught
    assert world.keeper.statistics().parsed < world.ring.end
    _, terminal = await world.shown()
    assert rows_of(terminal)[0] == "x"


async def test_a_size_that_nobody_looks_at_has_no_screen() -> None:
    world = World(size=TerminalSize(65535, 65535))
    world.write(b"text")
    assert await world.keeper.snapshot() is None
    assert world.keeper._terminal is None
    world.resize(SIZE)
    snapshot, _ = await world.shown()
    assert snapshot.size == SIZE


async def test_a_bug_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.write(b"text")

    def fail(*_: object) -> None:
        raise IndexError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(Terminal, "text", fail)
        assert await world.keeper.snapshot() is None
    _, terminal = await world.shown()
    assert rows_of(terminal)[0] == "text"


async def test_a_screen_that_takes_too_much_has_no_snapshot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeper, "PATIENCE", 60.0)
    world = World(capacity=4 * 1024 * 1024, size=TerminalSize(500, 130))
    world.write(
        b"".join(
            b"\x1b[38;2;%d;%d;%dmx" % (n % 256, n // 7 % 256, n // 3 % 256) for n in range(70_000)
        )
    )
    assert await world.keeper.snapshot() is None
