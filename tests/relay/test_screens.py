"""Late joiners and gaps over a link: the right screen, at an offset from which the bytes go on.

A thread makes the screens, so these tests run on the real clock.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from relay import stream as stream_module
from relay.attachment import screen_frames
from relay.carrier import Carrier
from relay.client import Trunk, open_trunk
from relay.client_attachment import AttachOptions, ClientAttachment
from relay.endpoint import Channel, Kind, TerminalSize
from relay.grant import Mode
from relay.inbox import Inbox, Missed, Output, ScreenOutput
from relay.limits import StreamLimits
from relay.protocol.errors import RemoteProtocolError
from relay.protocol.messages import MAX_SCREEN_PART, Attached, Exit, Gap, Screen, Start, encode
from relay.protocol.reasons import Refusal
from relay.screen import ScreenKeeper, Snapshot, Terminal
from tests.testing.faulty import FINE, Cut, Fault, faulty_pair
from tests.testing.raw_peer import RawPeer
from tests.testing.relay_world import SMALL, RelayWorld, Shell, open_world
from tests.testing.terminal_output import rows_of

A, B, C = "attachment-aaaaaa", "attachment-bbbbbb", "attachment-cccccc"
SIZE: dict[str, Any] = {"columns": 40, "rows": 5}
PTY: dict[str, Any] = {"kind": Kind.PTY}


@asynccontextmanager
async def terminal_world(
    *output: bytes, limits: StreamLimits | None = None
) -> AsyncIterator[tuple[RelayWorld, Shell, RawPeer, int]]:
    """A terminal under A's control that has written `output`, and A's link."""
    shell = Shell()
    with trio.fail_after(30):
        async with open_world(shell, limits) as world, world.raw() as peer:
            id_, _ = await peer.attach(start=Start(), attachment=A, **SIZE, **PTY)
            written = 0
            for piece in output:
                shell.sources[0].write(piece)
                written += len(piece)
                await peer.wait_for_bytes(id_, written)
                await peer.credit(id_, ack=written)
            yield world, shell, peer, id_


async def screen_of(peer: RawPeer, id_: int) -> tuple[Screen, Terminal]:
    """Take all parts of a screen; return the last one, and a terminal that was given them."""
    data = b""
    while True:
        part = await peer.expect(Screen, id_)
        assert len(part.data) <= MAX_SCREEN_PART
        data += part.data
        if part.last:
            break
    terminal = Terminal(TerminalSize(part.columns, part.rows))
    terminal.feed(data)
    return part, terminal


async def test_a_late_viewer_gets_the_screen_and_then_the_bytes() -> None:
    async with terminal_world(b"one\r\n", b"\x1b[31mtwo\x1b[6n") as (world, shell, _, _):
        async with world.raw() as late:
            id_, answer = await late.attach(attachment=B, mode=Mode.VIEW, replay="screen", **PTY)
            part, terminal = await screen_of(late, id_)
            assert answer.screen
            assert answer.start == {Channel.OUTPUT: 17}
            assert answer.live == part.at == 17
            assert (part.columns, part.rows) == (40, 5)
            assert rows_of(terminal)[:2] == ["one", "two"]
            shell.sources[0].write(b" three")
            assert (await late.wait_for_bytes(id_, 23)).data == b" three"
            assert (
                late.order.index("Attached") < late.order.index("Screen") < late.order.index("Data")
            )


async def test_a_late_controller_may_type_at_once() -> None:
    async with terminal_world(b"$ ") as (world, shell, peer, first):
        await peer.detach(first)
        async with world.raw() as late:
            id_, answer = await late.attach(attachment=B, replay="screen", **SIZE, **PTY)
            await screen_of(late, id_)
            assert answer.credit > answer.accepted == 0, "no replay has to be seen before"
            await late.input(id_, 0, b"ls\r")
            await shell.endpoints[0].sink.wait_for(3)


async def test_who_had_it_started_gets_every_byte() -> None:
    """The questions of a program at its start are for it; a screen would swallow them."""
    shell = Shell()
    with trio.fail_after(30):
        async with open_world(shell) as world, world.raw() as peer:
            id_, answer = await peer.attach(
                start=Start(), attachment=A, replay="screen", **SIZE, **PTY
            )
            assert answer.live == 0
            assert not answer.screen
            shell.sources[0].write(b"\x1b[c$ ")
            assert (await peer.wait_for_bytes(id_, 5)).data == b"\x1b[c$ "
            assert world.stream().screen is None


async def test_a_stream_without_late_joiners_pays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def must_not_be_made(*_: object) -> None:
        raise AssertionError("nobody has asked for a screen")

    monkeypatch.setattr(stream_module, "ScreenKeeper", must_not_be_made)
    lots = [b"\x1b[1mline\x1b[m\r\n" * 4000] * 8
    async with terminal_world(*lots, limits=SMALL) as (world, _, _, _), world.raw() as other:
        await other.attach(attachment=B, mode=Mode.VIEW, **PTY)
        await other.attach(attachment=C, mode=Mode.VIEW, replay="none", **PTY)
        assert world.stream().screen is None
        assert world.stream().rings[Channel.OUTPUT].dropped > 0


async def test_the_terminal_has_the_joiners_size_before_its_screen_is_taken() -> None:
    async with terminal_world(b"0123456789" * 5 + b"\r\n$ ") as (world, shell, peer, first):
        await peer.detach(first)
        async with world.raw() as late:
            id_, _ = await late.attach(attachment=B, replay="screen", columns=60, rows=10, **PTY)
            part, terminal = await screen_of(late, id_)
            assert (part.columns, part.rows) == (60, 10)
            assert rows_of(terminal)[:2] == ["0123456789" * 5, "$ "]
            assert TerminalSize(60, 10) in shell.endpoints[0].sizes


async def test_who_is_refused_changes_nothing() -> None:
    async with terminal_world(b"$ ") as (world, shell, _, _), world.raw() as other:
        before = list(shell.endpoints[0].sizes)
        refused = await other.refused(attachment=B, replay="screen", columns=9, rows=9, **PTY)
        assert refused.code is Refusal.BUSY
        assert shell.endpoints[0].sizes == before
        assert world.stream().screen is None


async def test_viewers_do_not_resize() -> None:
    async with terminal_world(b"$ ") as (world, shell, _, _), world.raw() as other:
        before = list(shell.endpoints[0].sizes)
        id_, _ = await other.attach(
            attachment=B, mode=Mode.VIEW, replay="screen", columns=9, rows=9, **PTY
        )
        part, _ = await screen_of(other, id_)
        assert (part.columns, part.rows) == (40, 5)
        assert shell.endpoints[0].sizes == before


async def test_other_kinds_have_no_screen() -> None:
    shell = Shell()
    with trio.fail_after(30):
        async with open_world(shell) as world, world.raw() as peer:
            id_, _ = await peer.attach(start=Start(), attachment=A)
            shell.sources[0].write(b"output")
            await peer.wait_for_bytes(id_, 6)
            await peer.detach(id_)
            id_, answer = await peer.attach(attachment=B, replay="screen")
            assert not answer.screen
            assert (await peer.wait_for_bytes(id_, 6)).data == b"output"


async def test_without_a_screen_in_time_everything_is_replayed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def none(_: ScreenKeeper) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(ScreenKeeper, "snapshot", none)
    async with terminal_world(b"old output") as (world, _, peer, first):
        await peer.detach(first)
        async with world.raw() as late:
            id_, answer = await late.attach(attachment=B, replay="screen", **PTY)
            assert not answer.screen
            assert answer.live == 10
            assert answer.credit == answer.accepted, "the replay has to be seen first"
            assert (await late.wait_for_bytes(id_, 10)).data == b"old output"


async def test_the_screen_of_what_has_ended() -> None:
    async with terminal_world(b"bye\r\n") as (world, shell, peer, first):
        shell.sources[0].end()
        await peer.wait_for_bytes(first, 5)
        await world.settle()
        async with world.raw() as late:
            id_, _ = await late.attach(attachment=B, mode=Mode.VIEW, replay="screen", **PTY)
            _, terminal = await screen_of(late, id_)
            assert rows_of(terminal)[0] == "bye"
            await late.expect(Exit, id_)
            assert late.order[-3:] == ["Screen", "Fin", "Exit"]


async def test_a_screen_in_parts() -> None:
    colours = b"".join(b"\x1b[38;2;%d;9;9mx" % (n % 256) for n in range(12_000))
    async with terminal_world(colours) as (world, _, _, _), world.raw() as late:
        id_, _ = await late.attach(attachment=B, mode=Mode.VIEW, replay="screen", **PTY)
        part, terminal = await screen_of(late, id_)
        assert part.at == len(colours)
        assert late.order.count("Screen") > 2
        assert rows_of(terminal)[0] == "x" * 40


# -------------------------------------------------------------------------- gaps


@asynccontextmanager
async def left_behind(
    world: RelayWorld, **fields: Any
) -> AsyncIterator[tuple[RawPeer, int, Attached]]:
    """A viewer that has taken its screen and lets only a little come after it."""
    async with world.raw() as slow:
        fields = {"mode": Mode.VIEW, "window": {Channel.OUTPUT: 100}, "attachment": B, **fields}
        id_, answer = await slow.attach(replay="screen", **fields, **PTY)
        await screen_of(slow, id_)
        yield slow, id_, answer


async def flood(shell: Shell, peer: RawPeer, first: int, start: int, lines: int = 40_000) -> int:
    """Write lines, and have A take them; return the offset after the last."""
    at = start
    for n in range(0, lines, 1000):
        data = b"".join(b"line %06d\r\n" % i for i in range(n, n + 1000))
        shell.sources[0].write(data)
        at += len(data)
        await peer.wait_for_bytes(first, at)
        await peer.credit(first, ack=at)
    return at


async def test_after_a_gap_comes_a_screen_and_then_the_bytes() -> None:
    async with terminal_world(b"$ flood\r\n", limits=SMALL) as (world, shell, peer, first):
        async with left_behind(world) as (slow, id_, answer):
            end = await flood(shell, peer, first, answer.live)
            await slow.credit(id_, ack=109, up_to=2**40)
            gap = await slow.expect(Gap, id_)
            part, terminal = await screen_of(slow, id_)
            assert gap == Gap(start=109, to=part.at, screen=True)
            assert part.at == end
            assert rows_of(terminal) == [f"line {n:06}" for n in range(39_996, 40_000)] + [""]
            shell.sources[0].write(b"$ ")
            received = await slow.wait_for_bytes(id_, end + 2)
            assert received.data[-2:] == b"$ "
            assert slow.order[-3:] == ["Gap", "Screen", "Data"]
            # The others have noticed nothing.
            assert not peer.received(first).gaps


async def test_who_does_not_read_gets_no_screens() -> None:
    async with terminal_world(b"$ flood\r\n", limits=SMALL) as (world, shell, peer, first):
        async with left_behind(world) as (slow, id_, answer):
            before = slow.order.count("Screen")
            await flood(shell, peer, first, answer.live)
            await world.settle()
            statistics = world.stream().screen
            assert statistics is not None
            assert statistics.snapshots == 1, "the one at the beginning"
            assert slow.order.count("Screen") == before
            assert not slow.received(id_).gaps


async def test_many_who_are_left_behind_share_a_screen() -> None:
    async with terminal_world(b"$ flood\r\n", limits=SMALL) as (world, shell, peer, first):
        async with (
            left_behind(world, attachment=B) as (slow, b, answer),
            left_behind(world, attachment=C) as (slower, c, _),
        ):
            end = await flood(shell, peer, first, answer.live)
            await slow.credit(b, ack=109, up_to=2**40)
            await slower.credit(c, ack=109, up_to=2**40)
            one, _ = await screen_of(slow, b)
            other, _ = await screen_of(slower, c)
            assert one.at == other.at == end


async def test_without_screen_a_gap_is_a_gap() -> None:
    async with terminal_world(b"$ flood\r\n", limits=SMALL) as (world, shell, peer, first):
        async with world.raw() as slow:
            id_, answer = await slow.attach(
                attachment=B, mode=Mode.VIEW, window={Channel.OUTPUT: 100}, **PTY
            )
            await flood(shell, peer, first, answer.live)
            await slow.credit(id_, ack=9, up_to=2**40)
            gap = await slow.expect(Gap, id_)
            assert not gap.screen
            assert "Screen" not in slow.order


async def test_the_end_comes_also_to_who_waits_for_a_screen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The stream ends while a screen is being made: its reader has the gap alone, and then the end."""
    making = trio.Event()

    async def never(_: ScreenKeeper) -> None:
        making.set()
        await trio.sleep_forever()

    async with terminal_world(b"$ flood\r\n", limits=SMALL) as (world, shell, peer, first):
        async with left_behind(world) as (slow, id_, answer):
            monkeypatch.setattr(ScreenKeeper, "snapshot", never)
            end = await flood(shell, peer, first, answer.live)
            await slow.credit(id_, ack=109, up_to=2**40)
            await making.wait()
            shell.sources[0].end()
            received = await slow.wait_for_bytes(id_, end)
            assert not (await slow.expect(Gap, id_)).screen
            assert received.gaps
            assert slow.order[-2:] == ["Fin", "Exit"]


async def test_a_controller_that_was_away_for_too_long() -> None:
    """It paces, but not for ever; when it comes back it is shown what it has missed."""
    limits = StreamLimits(
        ring_bytes=SMALL.ring_bytes, read_bytes=SMALL.read_bytes,
        input_window=SMALL.input_window, linger=0.05,
    )  # fmt: skip
    shell = Shell()
    with trio.fail_after(30):
        async with open_world(shell, limits) as world:
            async with world.raw() as peer:
                id_, answer = await peer.attach(
                    start=Start(), attachment=A, replay="screen", **SIZE, **PTY
                )
                shell.sources[0].write(b"$ flood\r\n")
                await peer.wait_for_bytes(id_, 9)
            shell.sources[0].write(b"".join(b"line %06d\r\n" % n for n in range(40_000)))
            while shell.sources[0].waiting:
                await trio.sleep(0.01)
            async with world.raw() as peer:
                id_, resumed = await peer.resume(
                    answer, {Channel.OUTPUT: 9}, attachment=A, replay="screen"
                )
                assert resumed.resumed
                assert resumed.start == {Channel.OUTPUT: 9}
                gap = await peer.expect(Gap, id_)
                part, terminal = await screen_of(peer, id_)
                assert (gap.start, gap.to, gap.screen) == (9, part.at, True)
                assert rows_of(terminal)[3] == "line 039999"


async def test_a_full_screen_program_is_asked_to_draw_what_is_gone() -> None:
    drawing = b"".join(b"\x1b[%d;1Hprocess %06d" % (n % 5 + 1, n) for n in range(1000))
    output = [b"\x1b[?1049h\x1b[?1h", *[drawing] * 10]
    async with terminal_world(*output, limits=SMALL) as (world, shell, peer, first):
        assert world.stream().rings[Channel.OUTPUT].dropped > 20
        async with world.raw() as viewer:
            id_, _ = await viewer.attach(attachment=C, mode=Mode.VIEW, replay="screen", **PTY)
            _, terminal = await screen_of(viewer, id_)
            assert terminal.is_alternate
            assert terminal.modes[1]
        assert shell.endpoints[0].sizes[1:] == []
        await peer.detach(first)
        async with world.raw() as late:
            id_, _ = await late.attach(attachment=B, replay="screen", **SIZE, **PTY)
            await screen_of(late, id_)
            assert shell.endpoints[0].sizes[-2:] == [TerminalSize(40, 4), TerminalSize(40, 5)]


# -------------------------------------------------------------------------- the client


def options(attachment: str, mode: Mode = Mode.VIEW, **fields: Any) -> AttachOptions:
    start = Start() if mode is Mode.CONTROL else None
    return AttachOptions(
        attachment, Kind.PTY, "t", mode=mode, start=start, replay="screen",
        size=TerminalSize(40, 5) if start else None, **fields,
    )  # fmt: skip


async def test_the_client_is_given_a_whole_screen() -> None:
    async with terminal_world(b"one\r\ntwo") as (world, shell, _, _), world.trunk() as trunk:
        viewer = await trunk.attach(options(B))
        item = await viewer.receive()
        assert isinstance(item, ScreenOutput)
        assert (item.offset, item.size, item.replay) == (8, TerminalSize(40, 5), True)
        shell.sources[0].write(b"\r\nthree")
        assert await viewer.receive() == Output(Channel.OUTPUT, 8, b"\r\nthree")


async def test_a_gap_for_the_client() -> None:
    async with terminal_world(b"$ flood\r\n", limits=SMALL) as (world, shell, peer, first):
        async with world.trunk() as trunk:
            viewer = await trunk.attach(options(B, window=100))
            assert isinstance(await viewer.receive(), ScreenOutput)
            end = await flood(shell, peer, first, 9)
            before = await viewer.receive()
            assert isinstance(before, Output)
            assert (before.offset, len(before.data)) == (9, 100)
            missed = await viewer.receive()
            assert missed == Missed(Channel.OUTPUT, 109, end, screen=True)
            item = await viewer.receive()
            assert isinstance(item, ScreenOutput)
            assert item.offset == end


@pytest.mark.parametrize("after", [300, 1000, 30_000, 60_000, 100_000, 150_000])
async def test_a_screen_that_was_cut_off_comes_again(after: int) -> None:
    colours = b"".join(b"\x1b[38;2;%d;9;9mx" % (n % 256) for n in range(12_000))
    async with terminal_world(colours) as (world, shell, _, _):
        async with cut_trunk(world, after) as (trunk, links):
            viewer = await trunk.attach(options(B))
            shell.sources[0].write(b"\r\nafter")
            terminal = await redraw_until(viewer, len(colours) + 7)
            assert "after" in rows_of(terminal)
            assert rows_of(terminal)[0] == "x" * 40
            assert len(links) == (2 if after < 200_000 else 1)


@asynccontextmanager
async def cut_trunk(world: RelayWorld, after: int) -> AsyncIterator[tuple[Trunk, list[Carrier]]]:
    """Open a trunk whose first link breaks after `after` bytes have come; and the links it had."""
    links: list[Carrier] = []

    async def dial() -> Carrier:
        fault = FINE if links else Fault(at=after, cut=Cut.END)
        ours, theirs = faulty_pair(back=fault)
        world.serve(theirs)
        links.append(ours)
        return ours

    async with open_trunk(dial, chance=lambda: 0.0) as trunk:
        yield trunk, links


async def redraw_until(viewer: ClientAttachment, end: int) -> Terminal:
    """Draw what comes as a program does, up to the offset `end`."""
    terminal = Terminal(TerminalSize(40, 5))
    at = 0
    while at < end:
        item = await viewer.receive()
        assert item is not None
        if isinstance(item, Missed):
            assert item.screen
            continue
        if isinstance(item, ScreenOutput):
            terminal = Terminal(item.size)
            at = item.offset
        else:
            at = item.offset + len(item.data)
        terminal.feed(item.data)
    return terminal


def test_a_screen_that_is_out_of_turn_or_too_long_is_refused() -> None:
    """The client trusts its owner with the terminal, not with its memory."""
    inbox = Inbox(Channel.OUTPUT, 1000)
    part = Screen(data=b"x" * 1000, at=0, columns=80, rows=24)
    with pytest.raises(RemoteProtocolError, match="out of its turn"):
        inbox.put_screen(part)
    inbox.expect_screen(announced=True)
    with pytest.raises(RemoteProtocolError, match="out of its turn"):
        inbox.put_screen(Screen(data=b"", at=5, columns=80, rows=24))
    with pytest.raises(RemoteProtocolError, match="more than"):
        for _ in range(2000):
            inbox.put_screen(part)


def test_frames_of_a_snapshot() -> None:
    empty = list(screen_frames(Snapshot(7, TerminalSize(80, 24), b"")))
    assert empty == [Screen(data=b"", at=7, columns=80, rows=24, last=True)]
    data = bytes(range(256)) * 400
    parts = list(screen_frames(Snapshot(7, TerminalSize(80, 24), data)))
    assert b"".join(part.data for part in parts) == data
    assert [part.last for part in parts] == [False, False, True]
    assert all(len(encode(part)) < 64 * 1024 for part in parts)
