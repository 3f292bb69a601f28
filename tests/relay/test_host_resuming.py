"""Coming back: at the exact byte, fenced from older links, and the replay."""

from __future__ import annotations

from typing import Any

import pytest

from relay.endpoint import Channel
from relay.protocol.messages import (
    Closed,
    Credit,
    Exit,
    Fin,
    Resize,
    Resume,
    Signal,
    Start,
    Stop,
    encode,
)
from relay.protocol.reasons import CloseReason, Refusal
from tests.testing.relay_world import Shell, open_world

A, B = "attachment-aaaaaa", "attachment-bbbbbb"
NEW = Start()
AGAIN = Start(restart=True)


# -------------------------------------------------------------------------- resuming


async def test_resuming_goes_on_at_the_exact_byte(autojump_clock: object) -> None:
    shell = Shell()
    async with open_world(shell) as world:
        async with world.raw() as peer:
            id_, answer = await peer.attach(start=NEW, attachment=A)
            assert answer.credit > answer.accepted == 0
            shell.sources[0].write(b"0123456789")
            await peer.wait_for_bytes(id_, 10)
            await peer.input(id_, 0, b"abcdef")
            await world.settle()
        await world.settle()
        shell.sources[0].write(b"abc")
        async with world.raw() as peer:
            id_, resumed = await peer.resume(answer, {Channel.OUTPUT: 4}, attachment=A)
            assert resumed.resumed
            assert not resumed.started
            assert resumed.accepted == 6
            assert resumed.start == {Channel.OUTPUT: 4, Channel.ERROR: 0}
            assert (await peer.wait_for_bytes(id_, 13)).data == b"456789abc"
            await peer.input(id_, 6, b"ghi")
            await world.settle()
    assert shell.endpoints[0].sink.data == b"abcdefghi"


async def test_an_attachment_that_was_forgotten(autojump_clock: object) -> None:
    shell = Shell()
    async with open_world(shell) as world, world.raw() as peer:
        id_, answer = await peer.attach(start=NEW, attachment=A)
        shell.sources[0].write(b"0123456789")
        await peer.input(id_, 0, b"abc")
        await peer.wait_for_bytes(id_, 10)
        await peer.detach(id_)
        id_, again = await peer.resume(answer, {Channel.OUTPUT: 4}, attachment=A)
        assert not again.resumed
        assert again.accepted == 0
        assert again.start[Channel.OUTPUT] == 4
        assert again.live == 0
        assert again.credit > 0
        assert (await peer.wait_for_bytes(id_, 10)).data == b"456789"


async def test_a_newer_link_supersedes_the_older_one(autojump_clock: object) -> None:
    """Generation fencing: what still comes over the old link changes nothing."""
    shell = Shell()
    async with open_world(shell) as world, world.raw() as old, world.raw() as new:
        id_, answer = await old.attach(start=NEW, attachment=A)
        await old.input(id_, 0, b"one ")
        await world.settle()
        new_id, resumed = await new.resume(answer, {}, attachment=A)
        assert resumed.accepted == 4
        assert (await old.expect(Closed, id_)).reason is CloseReason.SUPERSEDED
        await old.input(id_, 4, b"LATE")
        await old.send(
            encode(Signal(number=1, name="KILL"), id_),
            encode(Resize(columns=1, rows=1), id_),
            encode(Credit(ack=0, up_to=1), id_, 1),
            encode(Fin(at=4), id_, 0),
            encode(Stop(), id_, 1),
        )
        await old.detach(id_)
        await world.settle()
        await new.input(new_id, 4, b"two")
        shell.sources[0].write(b"output")
        await new.wait_for_bytes(new_id, 6)
        assert not new.has(Closed)
    endpoint = shell.endpoints[0]
    assert endpoint.sink.data == b"one two"
    assert (endpoint.signals, endpoint.sizes, endpoint.eofs) == ([], [], 0)


@pytest.mark.parametrize("resumes", [True, False])
async def test_a_request_that_comes_late_changes_nothing(
    resumes: bool, autojump_clock: object
) -> None:
    """The network held an ATTACH back; its client has long been attached over another link."""
    shell = Shell()
    async with open_world(shell) as world, world.raw() as old, world.raw() as new:
        id_, answer = await new.attach(start=AGAIN, attachment=A, generation=8)
        await new.input(id_, 0, b"typed")
        resume = Resume(stream=answer.stream, have={}) if resumes else None
        fields: dict[str, Any] = {
            "attachment": A,
            "start": AGAIN,
            "resume": resume,
            "takeover": True,
        }
        assert (await old.refused(**fields, generation=7)).code is Refusal.GONE
        assert not new.has(Closed)
        shell.sources[0].end()
        await new.expect(Exit, id_)
        assert (await old.refused(**fields, generation=7)).code is Refusal.GONE
        assert not new.has(Closed)
        (attachment,) = world.stream().attachments
        assert (attachment.bound, attachment.accepted) == (True, 5)
        await old.attach(**fields, generation=9)
        assert (await new.expect(Closed, id_)).reason in {
            CloseReason.SUPERSEDED,
            CloseReason.EXITED,
        }
    assert len(world.starts) == (1 if resumes else 2)


async def test_the_clean_up_of_an_old_link_leaves_the_new_one_alone(
    autojump_clock: object,
) -> None:
    shell = Shell()
    async with open_world(shell) as world, world.raw() as new:
        async with world.raw() as old:
            _, answer = await old.attach(start=NEW, attachment=A)
            id_, _ = await new.resume(answer, {}, attachment=A)
        await world.settle()
        assert [a.bound for a in world.stream().attachments] == [True]
        shell.sources[0].write(b"x")
        await new.wait_for_bytes(id_, 1)


async def test_the_same_attachment_twice_on_one_link(autojump_clock: object) -> None:
    async with open_world(Shell()) as world, world.raw() as peer:
        one, answer = await peer.attach(start=NEW, attachment=A)
        two, _ = await peer.resume(answer, {}, attachment=A)
        assert (await peer.expect(Closed, one)).reason is CloseReason.SUPERSEDED
        await peer.detach(two)
        assert (await peer.expect(Closed, two)).reason is CloseReason.DETACHED
        assert world.stream().attachments == ()


async def test_signals_are_taken_once(autojump_clock: object) -> None:
    shell = Shell()
    async with open_world(shell) as world:
        async with world.raw() as peer:
            id_, answer = await peer.attach(start=NEW, attachment=A)
            await peer.send(*(encode(Signal(number=n, name=f"S{n}"), id_) for n in (1, 2)))
            await world.settle()
        async with world.raw() as peer:
            id_, resumed = await peer.resume(answer, {}, attachment=A)
            assert resumed.signals == 2
            await peer.send(*(encode(Signal(number=n, name=f"S{n}"), id_) for n in (1, 2, 3)))
            await peer.send(encode(Signal(number=4, name="NOSUCH"), id_))
            await peer.send(encode(Signal(number=5, name="S5"), id_))
            await world.settle()
    assert shell.endpoints[0].signals == ["S1", "S2", "S3", "S5"]


# -------------------------------------------------------------------------- replay


async def test_input_waits_until_the_replay_was_acknowledged(autojump_clock: object) -> None:
    shell = Shell()
    async with open_world(shell) as world:
        async with world.raw() as peer:
            id_, _ = await peer.attach(start=NEW, attachment=A)
            shell.sources[0].write(b"what are you?")
            await peer.wait_for_bytes(id_, 13)
            await peer.detach(id_)
        async with world.raw() as peer:
            id_, answer = await peer.attach(attachment=B)
            assert answer.live == 13
            assert answer.accepted == answer.credit == 0
            await peer.wait_for_bytes(id_, 13)
            await peer.credit(id_, ack=12)
            await world.settle()
            assert not peer.has(Credit, id_)
            await peer.credit(id_, ack=13)
            granted = await peer.expect(Credit, id_)
            assert granted.up_to is not None
            await peer.input(id_, 0, b"ls\n")
            await world.settle()
    assert shell.endpoints[0].sink.data == b"ls\n"


async def test_input_before_the_gate_is_open_breaks_the_link(autojump_clock: object) -> None:
    shell = Shell()
    async with open_world(shell) as world:
        async with world.raw() as peer:
            id_, _ = await peer.attach(start=NEW, attachment=A)
            shell.sources[0].write(b"what are you?")
            await peer.wait_for_bytes(id_, 13)
        async with world.raw() as peer:
            id_, _ = await peer.attach(attachment=B)
            await peer.input(id_, 0, b"\x1b[?1;2c")
            goodbye = await peer.wait_ended()
            assert goodbye is not None
            assert "credit" in goodbye.message
    assert shell.endpoints[0].sink.data == b""


async def test_the_gate_stays_shut_over_a_cut(autojump_clock: object) -> None:
    shell = Shell()
    async with open_world(shell) as world:
        async with world.raw() as peer:
            id_, _ = await peer.attach(start=NEW, attachment=A)
            shell.sources[0].write(b"what are you?")
            await peer.wait_for_bytes(id_, 13)
        async with world.raw() as peer:
            _, answer = await peer.attach(attachment=B)
        async with world.raw() as peer:
            id_, resumed = await peer.resume(answer, {Channel.OUTPUT: 5}, attachment=B)
            assert resumed.resumed
            assert (resumed.live, resumed.credit) == (13, 0)
        async with world.raw() as peer:
            id_, resumed = await peer.resume(answer, {Channel.OUTPUT: 13}, attachment=B)
            assert resumed.credit > 0


async def test_one_who_does_not_read_may_type(autojump_clock: object) -> None:
    shell = Shell()
    async with open_world(shell) as world:
        async with world.raw() as peer:
            id_, _ = await peer.attach(start=NEW, attachment=A)
            shell.sources[0].write(b"what are you?")
            await peer.wait_for_bytes(id_, 13)
        async with world.raw() as peer:
            id_, answer = await peer.attach(attachment=B, window={})
            await peer.send(encode(Stop(), id_, 1))
            assert (await peer.expect(Credit, id_)).up_to
            resumed_id, _ = await peer.resume(answer, {Channel.OUTPUT: 0}, attachment=B)
            shell.sources[0].end()
            await peer.expect(Exit, resumed_id)
            assert not peer.received(resumed_id).data  # stopped is stopped


async def test_without_replay_there_is_nothing_to_wait_for(autojump_clock: object) -> None:
    shell = Shell()
    async with open_world(shell) as world, world.raw() as peer:
        id_, _ = await peer.attach(start=NEW, attachment=A)
        shell.sources[0].write(b"old")
        await peer.wait_for_bytes(id_, 3)
        await peer.credit(id_, ack=3)
        id_, answer = await peer.attach(attachment=A, replay="none")
        assert answer.start[Channel.OUTPUT] == answer.live == 3
        assert answer.credit > 0
        shell.sources[0].write(b"new")
        assert (await peer.wait_for_bytes(id_, 6)).data == b"new"
