"""Who gets which stream: starting once, resuming, control, replay, limits, the end."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from relay.client_attachment import AttachOptions
from relay.endpoint import (
    Channel,
    Endpoint,
    ExitStatus,
    Kind,
    StartError,
    StartRequest,
    TerminalSize,
    UnsupportedKindError,
)
from relay.grant import Mode
from relay.host import open_stream_host
from relay.limits import StreamLimits
from relay.memory import carrier_pair
from relay.protocol.messages import (
    Attached,
    Closed,
    Credit,
    Exit,
    Fin,
    Refused,
    Resize,
    Resume,
    Signal,
    Start,
    Stop,
    encode,
)
from relay.protocol.policies import Policy
from relay.protocol.reasons import CloseReason, Refusal
from tests.testing.endpoints import (
    EchoSource,
    FloodSource,
    ManualSource,
    ScriptedEndpoint,
    Sink,
    exec_endpoint,
    pty_endpoint,
)
from tests.testing.raw_peer import open_raw_peer
from tests.testing.relay_world import SMALL, RelayWorld, open_world

A, B = "attachment-aaaaaa", "attachment-bbbbbb"
NEW = Start()
AGAIN = Start(restart=True)


class Shell:
    """Starts terminals that the test writes to, and keeps them."""

    def __init__(self) -> None:
        self.sources: list[ManualSource] = []
        self.endpoints: list[ScriptedEndpoint] = []

    def __call__(self, request: StartRequest) -> Endpoint:
        source = ManualSource()
        if request.kind is Kind.PTY:
            endpoint = pty_endpoint(source)
        else:
            endpoint = exec_endpoint(source)
        self.sources.append(source)
        self.endpoints.append(endpoint)
        return endpoint


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
        again, resumed = await peer.resume(
            answer, {Channel.OUTPUT: 0}, attachment=A, start=AGAIN
        )
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


# -------------------------------------------------------------------------- authority


@pytest.mark.parametrize(
    ("grant", "fields"),
    [
        ({"kinds": frozenset({Kind.PTY})}, {}),
        ({"mode": Mode.VIEW}, {}),
        ({"mode": Mode.VIEW}, {"mode": Mode.VIEW, "policy": Policy.PACE}),
        ({"tag": "other"}, {}),
        ({"tag": "other"}, {"mode": Mode.VIEW}),
    ],
)
async def test_a_ticket_that_does_not_cover_it(
    grant: dict[str, object], fields: dict[str, object], autojump_clock: object
) -> None:
    async with open_world(Shell()) as world, world.raw() as owner:
        await owner.attach(start=NEW)
        async with world.raw(replace(world.grant(), **grant)) as peer:  # type: ignore[arg-type]  # parametrized
            refused = await peer.refused(attachment=B, **fields)
            assert refused.code is Refusal.FORBIDDEN
            assert "ticket" in refused.message


async def test_a_viewer_may_read_at_its_own_pace(autojump_clock: object) -> None:
    async with open_world(Shell()) as world, world.raw() as owner:
        await owner.attach(start=NEW)
        async with world.raw(world.grant(mode=Mode.VIEW)) as peer:
            for policy in (None, Policy.SKIP, Policy.DROP):
                await peer.attach(attachment=B, mode=Mode.VIEW, policy=policy)
        async with world.raw() as peer:  # a ticket for control covers it
            await peer.attach(attachment=B, mode=Mode.VIEW, policy=Policy.PACE)


async def test_somebody_elses_attachment(autojump_clock: object) -> None:
    async with open_world(Shell()) as world, world.raw() as mine:
        id_, answer = await mine.attach(start=NEW, attachment=A)
        async with world.raw(world.grant(subject="thief")) as peer:
            refused = await peer.refused(attachment=A, takeover=True)
            assert refused.code is Refusal.FORBIDDEN
            resume = Resume(stream=answer.stream, have={})
            assert (await peer.refused(attachment=A, resume=resume)).code is Refusal.FORBIDDEN
        assert not mine.has(Closed, id_)


async def test_revoking(autojump_clock: object) -> None:
    async with open_world(Shell()) as world, world.raw() as old:
        id_, _ = await old.attach(start=NEW, attachment=A)
        async with world.raw(world.grant(epoch=1)) as new:
            view, _ = await new.attach(attachment=B, mode=Mode.VIEW)
            world.host.revoke(1)
            assert (await old.expect(Closed, id_)).reason is CloseReason.REVOKED
            assert (await old.refused(attachment=A)).code is Refusal.FORBIDDEN
            await world.settle()
            assert not new.has(Closed, view)
            await new.attach(attachment="attachment-cccccc", takeover=True)


async def test_revoking_while_a_stream_starts(autojump_clock: object) -> None:
    async def slow(request: StartRequest) -> Endpoint:
        await trio.sleep(1)
        return Shell()(request)

    async with open_world(slow) as world, world.raw() as peer:
        id_ = await peer.request(start=NEW)
        await world.settle()
        world.host.revoke(1)
        answer = await peer.answer(id_)
        assert isinstance(answer, Refused)
        assert answer.code is Refusal.FORBIDDEN


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


# -------------------------------------------------------------------------- control


async def test_one_has_control(autojump_clock: object) -> None:
    shell = Shell()
    async with open_world(shell) as world, world.raw() as one, world.raw() as two:
        first, answer = await one.attach(start=NEW, attachment=A)
        refused = await two.refused(attachment=B)
        assert refused.code is Refusal.BUSY
        assert "take over" in refused.message
        await two.attach(attachment=B, mode=Mode.VIEW)
        second, _ = await two.attach(attachment=B, takeover=True)
        assert (await one.expect(Closed, first)).reason is CloseReason.TAKEN_OVER
        await two.input(second, 0, b"mine")
        await world.settle()
        assert shell.endpoints[0].sink.data == b"mine"
        # It can come back afresh, not as if nothing had been.
        resume = Resume(stream=answer.stream, have={})
        assert (await one.refused(attachment=A, resume=resume)).code is Refusal.BUSY
        _, back = await one.attach(attachment=A, resume=resume, takeover=True)
        assert not back.resumed


async def test_control_is_free_when_its_holder_has_no_link(autojump_clock: object) -> None:
    async with open_world(Shell()) as world, world.raw() as two:
        async with world.raw() as one:
            await one.attach(start=NEW, attachment=A)
        await world.settle()
        assert [a.bound for a in world.stream().attachments] == [False]
        await two.attach(attachment=B)
        assert [a.attachment for a in world.stream().attachments] == [B]


async def test_control_is_free_after_detach(autojump_clock: object) -> None:
    async with open_world(Shell()) as world, world.raw() as one, world.raw() as two:
        id_, _ = await one.attach(start=NEW, attachment=A)
        await one.detach(id_)
        assert (await one.expect(Closed, id_)).reason is CloseReason.DETACHED
        await two.attach(attachment=B)


async def test_a_viewer_cannot_act(autojump_clock: object) -> None:
    shell = Shell()
    async with open_world(shell) as world, world.raw() as owner:
        await owner.attach(start=NEW, attachment=A)
        async with world.raw() as viewer:
            id_, answer = await viewer.attach(attachment=B, mode=Mode.VIEW, columns=5, rows=5)
            assert answer.credit == 0
            await viewer.send(
                encode(Resize(columns=1, rows=1), id_),
                encode(Signal(number=1, name="KILL"), id_),
            )
            await world.settle()
            await viewer.input(id_, 0, b"rm -rf")
            goodbye = await viewer.wait_ended()
            assert goodbye is not None
            assert goodbye.reason is CloseReason.PROTOCOL_ERROR
    endpoint = shell.endpoints[0]
    assert (endpoint.sink.data, endpoint.signals, endpoint.sizes) == (b"", [], [])


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


# -------------------------------------------------------------------------- what has ended


async def test_coming_late_for_the_exit(autojump_clock: object) -> None:
    async with open_world(lambda _: pty_endpoint(b"all of it")) as world:
        async with world.raw() as peer:
            id_, _ = await peer.attach(kind=Kind.PTY, start=NEW, attachment=A)
            await peer.expect(Exit, id_)
            await peer.detach(id_)
        await trio.sleep(599)
        async with world.raw() as peer:
            id_, answer = await peer.attach(kind=Kind.PTY, attachment=B)
            assert answer.stopped
            assert await peer.expect(Exit, id_) == Exit(code=0)
            got = peer.received(id_)
            assert (got.data, got.fin) == (b"all of it", 9)


async def test_what_has_ended_is_forgotten_after_a_while(autojump_clock: object) -> None:
    async with open_world(lambda _: pty_endpoint(b"x")) as world:
        async with world.raw() as peer:
            id_, _ = await peer.attach(kind=Kind.PTY, start=NEW, attachment=A)
            await peer.expect(Exit, id_)
            await peer.detach(id_)
            await peer.expect(Closed)
            await trio.sleep(601)
            assert world.host.statistics() == ()  # although nobody has asked for anything
            assert (await peer.refused(kind=Kind.PTY)).code is Refusal.NOT_FOUND


async def test_what_somebody_still_reads_is_not_forgotten(autojump_clock: object) -> None:
    async with open_world(lambda _: pty_endpoint(b"x")) as world:
        async with world.trunk() as trunk:
            attachment = await trunk.attach(AttachOptions(A, Kind.PTY, "t", start=NEW))
            await trio.sleep(2000)
            assert len(world.host.statistics()) == 1
            assert await attachment.wait() == ExitStatus(code=0)
        await trio.sleep(700)
        assert world.host.statistics() == ()


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


# -------------------------------------------------------------------------- the end


@pytest.mark.parametrize(
    "reason", [CloseReason.EXPIRED, CloseReason.SESSION_ENDED, CloseReason.DRAINING]
)
async def test_ending_says_why_and_closes_everything(
    reason: CloseReason, autojump_clock: object
) -> None:
    shell = Shell()
    async with open_world(shell) as world, world.raw() as peer:
        id_, _ = await peer.attach(start=NEW, attachment=A)
        view, _ = await peer.attach(attachment=B, mode=Mode.VIEW)
        world.host.end(reason)
        assert (await peer.expect(Closed, id_)).reason is reason
        assert (await peer.expect(Closed, view)).reason is reason
        assert (await peer.refused(attachment=A)).code is Refusal.ENDING
        assert not shell.endpoints[0].closed  # that is up to who owns the block
    assert shell.endpoints[0].closed


async def test_leaving_the_block_says_that_the_session_has_ended(autojump_clock: object) -> None:
    shell = Shell()

    async def start(request: StartRequest) -> Endpoint:
        return shell(request)

    ours, theirs = carrier_pair()
    async with trio.open_nursery() as nursery, open_raw_peer(ours) as peer:
        async with open_stream_host(start) as host:
            RelayWorld(host, nursery, []).serve(theirs)
            id_, _ = await peer.attach(start=NEW, attachment=A)
        assert (await peer.expect(Closed, id_)).reason is CloseReason.SESSION_ENDED
        assert shell.endpoints[0].closed


async def test_ending_while_a_stream_starts(autojump_clock: object) -> None:
    made: list[ScriptedEndpoint] = []

    async def slow(request: StartRequest) -> Endpoint:
        await trio.sleep(1)
        made.append(pty_endpoint(FloodSource()))
        return made[0]

    async with open_world(slow) as world, world.raw() as peer:
        id_ = await peer.request(start=NEW)
        await world.settle()
        world.host.end(CloseReason.EXPIRED)
        answer = await peer.answer(id_)
        assert isinstance(answer, Refused)
        assert answer.code is Refusal.ENDING
    assert made[0].closed


async def test_a_stream_that_fails_ends_nothing_else(autojump_clock: object) -> None:
    class Bad(ManualSource):
        async def read(self, max_bytes: int) -> bytes:
            await trio.sleep(1)
            raise ZeroDivisionError("a bug")

    good = exec_endpoint(EchoSource(sink := Sink()), b"", sink)
    endpoints: list[Endpoint] = [pty_endpoint(Bad()), good]
    async with open_world(lambda _: endpoints.pop(0)) as world, world.raw() as peer:
        bad, _ = await peer.attach("bad", Kind.PTY, attachment=A, start=NEW)
        id_, _ = await peer.attach("good", attachment=B, start=NEW)
        closed = await peer.expect(Closed, bad)
        assert closed.reason is CloseReason.INTERNAL_ERROR
        assert "bug" not in closed.message
        await peer.input(id_, 0, b"hello")
        assert (await peer.wait_for_bytes(id_, 5)).data == b"hello"
        assert [stream.tag for stream in world.host.statistics()] == ["good"]

