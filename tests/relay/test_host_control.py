"""Who may do what to a stream: tickets, control, viewers, revocation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio

from relay.endpoint import (
    Endpoint,
    Kind,
    StartRequest,
)
from relay.grant import Mode
from relay.protocol.messages import (
    Closed,
    Refused,
    Resize,
    Resume,
    Signal,
    Start,
    encode,
)
from relay.protocol.policies import Policy
from relay.protocol.reasons import CloseReason, Refusal
from tests.testing.relay_world import Shell, open_world

A, B = "attachment-aaaaaa", "attachment-bbbbbb"
NEW = Start()
AGAIN = Start(restart=True)


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
    grant: dict[str, object], fields: dict[str, Any], autojump_clock: object
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
    assert endpoint.sink.data == b""
    assert (endpoint.signals, endpoint.sizes) == ([], [])
