"""Streams of a session by tag: starting once, what may be had, limits."""

from __future__ import annotations

import pytest
import trio

from relay.endpoint import (
    Channel,
    Endpoint,
    Kind,
    StartError,
    StartRequest,
    TerminalSize,
    UnsupportedKindError,
)
from relay.grant import Mode
from relay.limits import StreamLimits
from relay.protocol.messages import (
    Attached,
    Closed,
    Exit,
    Resume,
    Start,
)
from relay.protocol.reasons import CloseReason, Refusal
from tests.testing.relay_world import SMALL, Shell, open_world

A, B = "attachment-aaaaaa", "attachment-bbbbbb"
NEW = Start()
AGAIN = Start(restart=True)


# -------------------------------------------------------------------------- starting


async def test_the_first_request_starts_and_the_others_find(autojump_clock: object) -> None:
    shell = Shell()
    async with open_world(shell) as world, world.raw() as one, world.raw() as two:
        _, answer = await one.attach(start=Start(command=["x"]), columns=100, rows=40)
        assert (answer.started, answer.resumed, answer.pid) == (True, False, 4711)
        _, other = await two.attach(attachment=B, mode=Mode.VIEW)
        assert (other.started, other.stream) == (False, answer.stream)
    (request,) = world.starts
    assert (request.kind, request.command) == (Kind.EXEC, ("x",))
    assert request.size == TerminalSize(100, 40)


async def test_a_hundred_at_once_start_one(autojump_clock: object) -> None:
    shell = Shell()
    begun = trio.Event()

    async def slow(request: StartRequest) -> Endpoint:
        begun.set()
        await trio.sleep(1)
        return shell(request)

    limits = StreamLimits(max_attachments=200)
    async with open_world(slow, limits) as world, world.raw() as peer:
        ids = [
            await peer.request(attachment=f"attachment-{n:06}", start=NEW, takeover=True)
            for n in range(100)
        ]
        answers = [await peer.answer(id_) for id_ in ids]
        attached = [answer for answer in answers if isinstance(answer, Attached)]
        assert [answer.started for answer in attached].count(True) == 1
        assert len({answer.stream for answer in attached}) == 1
    assert len(world.starts) == 1


async def test_a_request_is_repeated_when_its_answer_was_lost(autojump_clock: object) -> None:
    shell = Shell()
    async with open_world(shell) as world:
        async with world.raw() as peer:
            id_, first = await peer.attach(start=AGAIN, attachment=A)
            shell.sources[0].write(b"all there is")
            shell.sources[0].end()
            await peer.expect(Exit, id_)
        # The client never saw any of that.  It must not run the command twice.
        async with world.raw() as peer:
            id_, second = await peer.attach(start=AGAIN, attachment=A)
            assert second.stream == first.stream
            assert second.started
            assert second.live == 0  # nobody has seen the output: its questions want answers
            assert (await peer.wait_for_fin(id_)).data == b"all there is"
    assert len(world.starts) == 1


async def test_a_request_is_repeated_when_it_was_cut_while_starting(
    autojump_clock: object,
) -> None:
    shell = Shell()

    async def slow(request: StartRequest) -> Endpoint:
        await trio.sleep(1)
        return shell(request)

    async with open_world(slow, SMALL) as world:
        async with world.raw() as peer:
            await peer.request(kind=Kind.PTY, start=AGAIN, attachment=A)
        await trio.sleep(2)
        shell.sources[0].write(bytes(200_000))  # more than the ring, and it would drop
        shell.sources[0].end()
        await trio.sleep(20)
        async with world.raw() as peer:
            id_, answer = await peer.attach(kind=Kind.PTY, start=AGAIN, attachment=A)
            assert answer.started
            got = await peer.wait_for_bytes(id_, 100_000)
            assert (got.start, got.gaps) == (0, [])
    assert len(world.starts) == 1


async def test_nobody_waits_for_ever_for_one_who_had_it_started(autojump_clock: object) -> None:
    shell = Shell()

    async def slow(request: StartRequest) -> Endpoint:
        await trio.sleep(1)
        return shell(request)

    async with open_world(slow, SMALL) as world:
        async with world.raw() as peer:
            await peer.request(kind=Kind.PTY, start=NEW, attachment=A)
        await trio.sleep(2)
        shell.sources[0].write(bytes(200_000))
        await trio.sleep(SMALL.linger - 5)
        assert world.stream().rings[Channel.OUTPUT].dropped == 0
        await trio.sleep(10)
        assert world.stream().rings[Channel.OUTPUT].dropped == 200_000 - SMALL.ring_bytes


async def test_restart_starts_anew_only_what_has_ended(autojump_clock: object) -> None:
    shell = Shell()
    async with open_world(shell) as world, world.raw() as peer:
        id_, first = await peer.attach(start=AGAIN, attachment=A)
        await peer.credit(id_, up_to=2**41)
        again, same = await peer.attach(start=AGAIN, attachment=A)
        assert same.stream == first.stream
        shell.sources[0].end()
        await peer.expect(Exit, again)
        await peer.credit(again, up_to=2**41)
        _, second = await peer.attach(start=AGAIN, attachment=A)
        assert second.stream != first.stream
        assert second.started
        assert (await peer.expect(Closed, again)).reason is CloseReason.EXITED
    assert len(world.starts) == 2


async def test_restart_tells_a_reader_who_is_behind(autojump_clock: object) -> None:
    shell = Shell()
    async with open_world(shell) as world, world.raw() as peer:
        id_, _ = await peer.attach(start=NEW, attachment=A)
        behind, _ = await peer.attach(attachment=B, mode=Mode.VIEW, window={})
        shell.sources[0].write(b"unread")
        shell.sources[0].end()
        await peer.expect(Exit, id_)
        await peer.credit(id_, ack=6)
        await peer.attach(start=AGAIN, attachment=A)
        assert (await peer.expect(Closed, behind)).reason is CloseReason.TOO_FAR_BEHIND
        assert (await peer.expect(Closed, id_)).reason is CloseReason.EXITED


async def test_resuming_never_restarts(autojump_clock: object) -> None:
    shell = Shell()
    async with open_world(shell) as world, world.raw() as peer:
        id_, answer = await peer.attach(start=NEW, attachment=A)
        shell.sources[0].end()
        await peer.expect(Exit, id_)
        await peer.credit(id_, ack=0)
        again, resumed = await peer.resume(answer, {Channel.OUTPUT: 0}, attachment=A, start=AGAIN)
        assert resumed.stream == answer.stream
        assert await peer.expect(Exit, again) == Exit(code=0)
    assert len(world.starts) == 1


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (StartError("no such command: x"), Refusal.START_FAILED, "no such command: x"),
        (UnsupportedKindError("no desktops here"), Refusal.UNSUPPORTED, "no desktops here"),
        (StartError("x" * 100_000), Refusal.START_FAILED, None),
        (StartError("\udcff"), Refusal.START_FAILED, "?"),
        (ZeroDivisionError("secret"), Refusal.START_FAILED, "an internal error"),
    ],
)
async def test_a_start_that_fails(
    error: Exception, code: Refusal, message: str | None, autojump_clock: object
) -> None:
    failures = [error]
    shell = Shell()

    def start(request: StartRequest) -> Endpoint:
        if failures:
            raise failures.pop()
        return shell(request)

    async with open_world(start) as world, world.raw() as peer:
        refused = await peer.refused(start=NEW)
        assert refused.code is code
        assert "secret" not in refused.message
        if message is not None:
            assert message in refused.message
        await peer.attach(start=NEW)  # the link is still good, and so is the tag
        assert world.host.statistics()[0].tag == "t"


async def test_what_cannot_be_had(autojump_clock: object) -> None:
    async with open_world(Shell()) as world, world.raw() as peer:
        assert (await peer.refused()).code is Refusal.NOT_FOUND
        assert (await peer.refused(start=NEW, mode=Mode.VIEW)).code is Refusal.FORBIDDEN
        resume = Resume(stream="x", have={})
        assert (await peer.refused(start=NEW, resume=resume)).code is Refusal.GONE
        _, answer = await peer.attach(start=NEW)
        assert (await peer.refused(kind=Kind.PTY)).code is Refusal.CONFLICT
        assert (await peer.refused(resume=resume)).code is Refusal.GONE
        for have in ({Channel.OUTPUT: 1}, {Channel.INPUT: 0}):
            resume = Resume(stream=answer.stream, have=have)
            assert (await peer.refused(resume=resume)).code is Refusal.BAD_REQUEST
    assert len(world.starts) == 1


# -------------------------------------------------------------------------- limits


async def test_too_many_streams(autojump_clock: object) -> None:
    shell = Shell()
    async with open_world(shell, StreamLimits(max_streams=3)) as world, world.raw() as peer:
        ids = [(await peer.attach(tag, attachment=A, start=NEW))[0] for tag in "abc"]
        refused = await peer.refused("d", attachment=A, start=NEW)
        assert refused.code is Refusal.LIMIT
        shell.sources[1].end()
        await peer.expect(Exit, ids[1])
        assert (await peer.refused("d", attachment=A, start=NEW)).code is Refusal.LIMIT
        await peer.detach(ids[1])
        await peer.attach("d", attachment=A, start=NEW)
        assert {stream.tag for stream in world.host.statistics()} == set("acd")


async def test_a_full_session_forgets_nothing_that_is_asked_for(autojump_clock: object) -> None:
    """A repeated request finds the stream it started, also when the table is full."""
    shell = Shell()
    async with open_world(shell, StreamLimits(max_streams=2)) as world, world.raw() as peer:
        for number, tag in enumerate("ab"):
            id_, _ = await peer.attach(tag, attachment=A, start=NEW)
            shell.sources[number].end()
            await peer.expect(Exit, id_)
            await peer.detach(id_)
        _, again = await peer.attach("a", attachment=A, start=NEW)
        assert not again.started
    assert len(world.starts) == 2


async def test_one_who_was_just_cut_off_keeps_an_ended_stream(autojump_clock: object) -> None:
    shell = Shell()
    async with open_world(shell, StreamLimits(max_streams=1)) as world, world.raw() as peer:
        async with world.raw() as cut:
            id_, _ = await cut.attach("a", attachment=A, start=NEW)
            shell.sources[0].end()
            await cut.expect(Exit, id_)
        await world.settle()
        assert (await peer.refused("b", attachment=B, start=NEW)).code is Refusal.LIMIT
        await trio.sleep(31)
        await peer.attach("b", attachment=B, start=NEW)


async def test_too_many_attachments(autojump_clock: object) -> None:
    limits = StreamLimits(max_attachments=4)
    async with open_world(Shell(), limits) as world, world.raw() as peer:
        await peer.attach(start=NEW, attachment=A)
        viewers = [f"viewer-{n:012}" for n in range(4)]
        for viewer in viewers[:2]:
            await peer.attach(attachment=viewer, mode=Mode.VIEW)
        refused = await peer.refused(attachment=viewers[2], mode=Mode.VIEW)
        assert refused.code is Refusal.LIMIT


async def test_viewers_leave_a_place_for_control(autojump_clock: object) -> None:
    limits = StreamLimits(max_attachments=4)
    async with open_world(Shell(), limits) as world, world.raw() as peer:
        id_, _ = await peer.attach(start=NEW, attachment=A)
        await peer.detach(id_)
        for number in range(3):
            await peer.attach(attachment=f"viewer-{number:012}", mode=Mode.VIEW)
        refused = await peer.refused(attachment=B, mode=Mode.VIEW)
        assert refused.code is Refusal.LIMIT
        await peer.attach(attachment=B)


async def test_viewers_cannot_push_out_one_who_was_cut_off(autojump_clock: object) -> None:
    limits = StreamLimits(max_attachments=4)
    async with open_world(Shell(), limits) as world:
        async with world.raw() as peer:
            _, answer = await peer.attach(start=NEW, attachment=A)
        for number in range(20):
            async with world.raw(world.grant("guest", Mode.VIEW)) as peer:
                await peer.attach(attachment=f"viewer-{number:012}", mode=Mode.VIEW)
        async with world.raw() as peer:
            assert (await peer.resume(answer, {}, attachment=A))[1].resumed
