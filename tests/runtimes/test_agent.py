"""The agent: sessions, the links to them, and how they end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from relay.client_attachment import AttachOptions
from relay.endpoint import ExitStatus, Kind
from relay.errors import AttachmentClosed, AttachRefused
from relay.grant import Grant, Mode
from relay.link import LinkEnd
from relay.memory import carrier_pair
from relay.protocol.messages import Closed, Refused, Start
from relay.protocol.reasons import CloseReason, Refusal
from runtimes.agent import Agent
from runtimes.base import SandboxError, SandboxSpec, UnknownSession
from runtimes.fake import FakeRuntime
from tests.testing.raw_peer import RawPeer, open_raw_peer

A = "attachment-aaaaaa"
SHELL = Start()


def grant(session: str = "s", **fields: object) -> Grant:
    return Grant(session, "me", frozenset(Kind), **fields)  # type: ignore[arg-type]  # given by tests


def agent() -> Agent:
    return Agent(FakeRuntime(grace=0.2), software="test/1")


class Links:
    """Serves links in the background and keeps how they ended."""

    def __init__(self, agent: Agent, nursery: trio.Nursery) -> None:
        self.agent = agent
        self.nursery = nursery
        self.ends: list[LinkEnd] = []

    @asynccontextmanager
    async def open(self, authority: Grant) -> AsyncIterator[RawPeer]:
        ours, theirs = carrier_pair()

        async def serve() -> None:
            self.ends.append(await self.agent.serve_link(theirs, authority))

        self.nursery.start_soon(serve)
        async with open_raw_peer(ours) as peer:
            yield peer

    async def keep_open(self, authority: Grant, task_status: trio.TaskStatus[RawPeer]) -> None:
        async with self.open(authority) as peer:
            task_status.started(peer)
            await trio.sleep_forever()


@asynccontextmanager
async def linked(agent: Agent) -> AsyncIterator[Links]:
    async with trio.open_nursery() as nursery:
        yield Links(agent, nursery)
        nursery.cancel_scope.cancel()


async def test_what_it_is(autojump_clock: object) -> None:
    one = agent()
    assert one.runtime_name == FakeRuntime().name
    assert one.isolated is FakeRuntime().isolated
    statistics = one.statistics()
    assert (statistics.sessions, statistics.links, statistics.streams) == (0, 0, {})


async def test_a_session_and_its_streams(autojump_clock: object) -> None:
    one = agent()
    async with one.open_session(SandboxSpec("s")), linked(one) as links:
        async with links.open(grant()) as peer:
            id_, answer = await peer.attach(attachment=A, start=Start(command=["echo", "hello"]))
            assert answer.started
            assert (await peer.wait_for_fin(id_)).data == b"hello\n"
            statistics = one.statistics()
            assert (statistics.sessions, statistics.links) == (1, 1)
            assert [stream.tag for stream in statistics.streams["s"]] == ["t"]
            assert one.streams("s") == statistics.streams["s"]
        await trio.testing.wait_all_tasks_blocked()
        assert one.statistics().links == 0
        assert [end.reason for end in links.ends] == [CloseReason.CONNECTION_LOST]
    assert one.statistics().sessions == 0


async def test_sessions_are_apart(autojump_clock: object) -> None:
    one = agent()
    async with (
        one.open_session(SandboxSpec("a")),
        one.open_session(SandboxSpec("b")),
        linked(one) as links,
        links.open(grant("a")) as to_a,
        links.open(grant("b")) as to_b,
    ):
        await to_a.attach(kind=Kind.PTY, attachment=A, start=SHELL)
        assert (await to_b.refused(kind=Kind.PTY, attachment=A)).code is Refusal.NOT_FOUND


async def test_a_session_that_is_not_here(autojump_clock: object) -> None:
    one = agent()
    ours, theirs = carrier_pair()
    with pytest.raises(UnknownSession, match="s"):
        await one.serve_link(theirs, grant())
    await theirs.send([b"the carrier is still open"])
    assert await ours.receive()
    for ask in (lambda: one.streams("s"), lambda: one.send_signal("s", "t", "INT")):
        with pytest.raises(UnknownSession):
            ask()


async def test_a_session_that_is_here_already(autojump_clock: object) -> None:
    one = agent()
    async with one.open_session(SandboxSpec("s")):
        with pytest.raises(SandboxError, match="already"):
            async with one.open_session(SandboxSpec("s")):
                pytest.fail("it opened")
        assert one.statistics().sessions == 1


@pytest.mark.parametrize("reason", [CloseReason.EXPIRED, CloseReason.SESSION_ENDED])
async def test_ending_a_session(reason: CloseReason, autojump_clock: object) -> None:
    one = agent()
    async with one.open_session(SandboxSpec("s")) as hosted, linked(one) as links:
        async with links.open(grant()) as peer, links.open(grant()) as idle:
            id_, _ = await peer.attach(kind=Kind.PTY, attachment=A, start=SHELL)
            hosted.end(reason)
            assert (await peer.expect(Closed, id_)).reason is reason
            for other in (peer, idle):
                goodbye = await other.wait_ended()
                assert goodbye is not None
                assert goodbye.reason is reason
        with pytest.raises(UnknownSession):
            await one.serve_link(carrier_pair()[0], grant())


async def test_leaving_the_block_ends_the_session(autojump_clock: object) -> None:
    one = agent()
    async with linked(one) as links:
        async with one.open_session(SandboxSpec("s")):
            peer = await links.nursery.start(links.keep_open, grant())
            id_, _ = await peer.attach(kind=Kind.PTY, attachment=A, start=SHELL)
        assert (await peer.expect(Closed, id_)).reason is CloseReason.SESSION_ENDED
        assert one.statistics().sessions == 0


async def test_revoking(autojump_clock: object) -> None:
    one = agent()
    async with one.open_session(SandboxSpec("s")) as hosted, linked(one) as links:
        async with links.open(grant()) as old, links.open(grant(epoch=1)) as new:
            id_, _ = await old.attach(kind=Kind.PTY, attachment=A, start=SHELL)
            hosted.revoke(1)
            assert (await old.expect(Closed, id_)).reason is CloseReason.REVOKED
            goodbye = await old.wait_ended()
            assert goodbye is not None
            assert goodbye.reason is CloseReason.REVOKED
            await new.attach(kind=Kind.PTY, attachment="attachment-bbbbbb")
        async with links.open(grant()) as late:
            assert (await late.refused(kind=Kind.PTY)).code is Refusal.FORBIDDEN


async def test_draining(autojump_clock: object) -> None:
    one = agent()
    async with one.open_session(SandboxSpec("s")), linked(one) as links:
        async with links.open(grant()) as peer:
            _, answer = await peer.attach(kind=Kind.PTY, attachment=A, start=SHELL)
            one.drain(2.5)
            goodbye = await peer.wait_ended()
            assert goodbye is not None
            assert (goodbye.reason, goodbye.retry_after) == (CloseReason.DRAINING, 2.5)
            assert not peer.has(Closed)
        async with links.open(grant()) as peer:  # here again, or at the next process
            assert (await peer.resume(answer, {}, attachment=A))[1].resumed


async def test_cancelling_a_link(autojump_clock: object) -> None:
    one = agent()
    async with one.open_session(SandboxSpec("s")):
        _, theirs = carrier_pair()
        with trio.move_on_after(1):
            await one.serve_link(theirs, grant())
        assert one.statistics().links == 0


# -------------------------------------------------------------------------- within the process


async def test_a_trunk_within_the_process(autojump_clock: object) -> None:
    one = agent()
    async with one.open_session(SandboxSpec("s")):
        async with one.open_trunk(grant()) as trunk:
            attachment = await trunk.attach(
                AttachOptions(A, Kind.EXEC, "t", start=Start(command=["cat"]))
            )
            await attachment.send(b"hello")
            attachment.send_eof()
            output = await attachment.receive()
            assert output is not None
            assert await attachment.receive() is None
            assert await attachment.wait() == ExitStatus(code=0)
        await trio.testing.wait_all_tasks_blocked()
        assert one.statistics().links == 0
        assert all(not stream.attachments for stream in one.streams("s"))
    with pytest.raises(UnknownSession):
        async with one.open_trunk(grant()):
            pytest.fail("it opened")


async def test_a_trunk_within_the_process_has_the_authority_of_its_grant(
    autojump_clock: object,
) -> None:
    one = agent()
    async with (
        one.open_session(SandboxSpec("s")),
        one.open_trunk(grant(mode=Mode.VIEW)) as trunk,
    ):
        with pytest.raises(AttachRefused) as caught:
            await trunk.attach(AttachOptions(A, Kind.PTY, "t", start=SHELL))
        assert caught.value.code is Refusal.FORBIDDEN


async def test_the_session_ends_under_a_trunk(autojump_clock: object) -> None:
    one = agent()
    async with one.open_session(SandboxSpec("s")) as hosted, one.open_trunk(grant()) as trunk:
        attachment = await trunk.attach(AttachOptions(A, Kind.PTY, "t", start=SHELL))
        hosted.end(CloseReason.EXPIRED)
        with pytest.raises(AttachmentClosed) as caught:
            await attachment.wait()
        assert caught.value.reason is CloseReason.EXPIRED


async def test_a_signal_from_outside(autojump_clock: object) -> None:
    one = agent()
    async with one.open_session(SandboxSpec("s")), one.open_trunk(grant()) as trunk:
        attachment = await trunk.attach(
            AttachOptions(A, Kind.EXEC, "t", start=Start(command=["sleep", "1000"]))
        )
        one.send_signal("s", "t", "TERM")
        assert await attachment.wait() == ExitStatus(signal="TERM")


async def test_a_start_that_fails(autojump_clock: object) -> None:
    one = agent()
    async with (
        one.open_session(SandboxSpec("s")),
        linked(one) as links,
        links.open(grant()) as peer,
    ):
        id_ = await peer.request(attachment=A, start=Start(command=["no-such-thing"]))
        answer = await peer.answer(id_)
        assert isinstance(answer, Refused)
        assert answer.code is Refusal.START_FAILED
        assert "no-such-thing" in answer.message
