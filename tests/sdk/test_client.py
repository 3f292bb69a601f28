from __future__ import annotations

import math

import pytest
import trio

from relay.client import TrunkState, TrunkStatus
from relay.endpoint import Channel, Kind, TerminalSize
from relay.errors import AttachmentClosed, AttachRefused
from relay.grant import Mode
from relay.inbox import Output
from relay.protocol.reasons import CloseReason, Refusal
from tests.testing.served import Served
from trunkline.sdk.client import Connection, Session, open_client
from trunkline.sdk.errors import ApiError, ServerNotFound

UNKNOWN = "00000000-0000-4000-8000-000000000000"


async def read_until(attachment: object, wanted: bytes) -> bytes:
    data = b""
    with trio.fail_after(20):
        while wanted not in data:
            item = await attachment.receive()  # type: ignore[attr-defined]  # a ClientAttachment
            assert isinstance(item, Output), (item, data)
            data += item.data
    return data


async def test_a_life_of_a_session(world: Served) -> None:
    session = await world.client.create_session(ttl_seconds=60)
    info = await session.info()
    assert (info.session_id, info.status, info.state) == (session.id, "running", "running")
    assert (info.profile, info.runtime) == ("default", "fake")
    assert (info.expires_at - info.created_at).total_seconds() == 60
    assert [s.session_id for s in await world.client.sessions()] == [session.id]
    await session.delete()
    await session.delete()
    assert (await session.info()).status == "terminated"


async def test_the_note_is_enough(world: Served) -> None:
    async with open_client() as client:
        assert await client.sessions() == []
        assert client.server.url == world.ready.url


async def test_errors_of_the_api(world: Served) -> None:
    with pytest.raises(ApiError) as caught:
        await world.client.create_session("nonsense")
    assert (caught.value.status, caught.value.field) == (400, "profile")
    with pytest.raises(ApiError) as caught:
        await world.client.session(UNKNOWN).info()
    assert caught.value.status == 404
    with pytest.raises(ServerNotFound):
        async with open_client("nonsense", "token"):
            pass


async def test_run(session: Session) -> None:
    async with session.connect() as connection:
        done = await connection.run(["sh", "-c", "cat; echo oops >&2; exit 3"], stdin=b"hello\n")
    assert (done.status.code, done.stdout, done.stderr) == (3, b"hello\n", b"oops\n")


async def test_run_one_that_writes_too_much(session: Session) -> None:
    async with session.connect() as connection:
        with (
            trio.fail_after(20),
            pytest.raises(ValueError, match="yes wrote more than 100000 bytes"),
        ):
            await connection.run(["yes"], limit=100_000)
        done = await connection.run(["echo", "next"])
        assert done.stdout == b"next\n"


async def test_run_one_that_wants_no_input(session: Session) -> None:
    async with session.connect() as connection:
        with trio.fail_after(20):
            done = await connection.run(["sh", "-c", "exit 5"], stdin=bytes(5_000_000))
    assert done.status.code == 5


async def test_run_cancelled(session: Session) -> None:
    """Nothing is left of it on this side, and the connection is as good as before."""
    async with session.connect() as connection:
        with trio.move_on_after(0.2) as scope:
            await connection.run(["sleep", "1000"])
        assert scope.cancelled_caught
        assert connection.statistics().attachments == 0
        assert (await connection.run(["echo", "x"])).stdout == b"x\n"


async def test_commands_that_cannot_start(session: Session) -> None:
    async with session.connect() as connection:
        with pytest.raises(AttachRefused, match="nonsense") as caught:
            await connection.exec(["nonsense"])
        assert caught.value.code is Refusal.START_FAILED


async def test_a_terminal(session: Session) -> None:
    async with session.connect() as connection:
        terminal = await connection.terminal(size=TerminalSize(91, 17))
        await read_until(terminal, b"$ ")
        await terminal.send(b"stty size\r")
        await read_until(terminal, b"17 91\r\n")
        terminal.resize(TerminalSize(20, 10))
        await terminal.send(b"stty size\r")
        await read_until(terminal, b"10 20\r\n")
        async with session.connect(mode=Mode.VIEW) as viewing:
            viewer = await viewing.terminal()
            await read_until(viewer, b"10 20\r\n")
            with pytest.raises(ValueError, match="a viewer sends no input"):
                await viewer.send(b"x")
            await terminal.send(b"echo bye; exit 4\r")
            await read_until(viewer, b"bye\r\n")
            while await terminal.receive() is not None:
                pass
            assert (await terminal.wait()).code == 4
            assert (await viewer.wait()).code == 4


async def test_a_second_controller(session: Session) -> None:
    async with session.connect() as one, session.connect() as two:
        first = await one.terminal()
        with pytest.raises(AttachRefused) as caught:
            await two.terminal()
        assert caught.value.code is Refusal.BUSY
        await two.terminal(takeover=True)
        with trio.fail_after(20), pytest.raises(AttachmentClosed) as closed:
            while True:
                await first.receive()
        assert closed.value.reason is CloseReason.TAKEN_OVER


async def test_what_runs_goes_on_without_its_client(session: Session) -> None:
    async with session.connect() as connection:
        process = await connection.exec(["cat"], tag="job")
        await process.send(b"one\n")
        await read_until(process, b"one\n")
        connection.detach(process)
        with pytest.raises(AttachmentClosed):
            await process.receive()
    async with session.connect() as connection:
        again = await connection.exec(["cat"], tag="job")
        assert await read_until(again, b"one\n") == b"one\n"
        # What was replayed counts as seen once the next is asked for.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(again.send, b"two\n")
            assert await read_until(again, b"two\n") == b"two\n"
        again.send_eof()
        assert await again.receive() is None
        assert (await again.wait()).code == 0


async def test_signals_streams_and_both_outputs(session: Session) -> None:
    async with session.connect() as connection:
        process = await connection.exec(["sleep", "1000"], tag="sleeper")
        (stream,) = await session.streams()
        assert (stream.tag, stream.kind, stream.state) == ("sleeper", Kind.EXEC, "running")
        process.send_signal("TERM")
        with trio.fail_after(20):
            assert (await process.wait()).signal == "TERM"
            assert await process.receive(Channel.ERROR) is None
        other = await connection.exec(["sleep", "1000"], tag="other")
        await session.send_signal("other", "KILL")
        with trio.fail_after(20):
            assert (await other.wait()).signal == "KILL"


async def test_a_narrow_connection(session: Session) -> None:
    async with session.connect(tag="mine", kinds=frozenset({Kind.EXEC})) as connection:
        with pytest.raises(AttachRefused) as caught:
            await connection.exec(["true"], tag="other")
        assert caught.value.code is Refusal.FORBIDDEN
        with pytest.raises(AttachRefused) as caught:
            await connection.terminal("mine")
        assert caught.value.code is Refusal.FORBIDDEN


async def test_the_session_ends(session: Session) -> None:
    async with session.connect() as connection:
        process = await connection.exec(["cat"])
        await session.delete()
        with trio.fail_after(20), pytest.raises(AttachmentClosed) as caught:
            await process.receive()
        assert caught.value.reason is CloseReason.SESSION_ENDED
        with pytest.raises(AttachmentClosed):
            await connection.exec(["cat"])


async def test_a_session_that_is_not_there(world: Served) -> None:
    async with world.client.session(UNKNOWN).connect() as connection:
        with trio.fail_after(20), pytest.raises(AttachmentClosed) as caught:
            await connection.exec(["cat"])
    assert caught.value.reason is CloseReason.SESSION_ENDED


async def test_a_server_that_was_never_there() -> None:
    """It is not waited for."""
    states: list[TrunkStatus] = []
    async with (
        open_client("http://127.0.0.1:1", "t") as client,
        client.session(UNKNOWN).connect(observe=states.append) as connection,
    ):
        with trio.fail_after(20), pytest.raises(AttachmentClosed) as caught:
            await connection.exec(["cat"])
    assert caught.value.reason is CloseReason.CONNECTION_LOST
    assert "Connection refused" in str(caught.value)
    assert [s.state for s in states][-1] is TrunkState.CLOSED
    assert TrunkState.WAITING not in [s.state for s in states]


async def test_leaving_is_quick(session: Session) -> None:
    """Whatever is under way when the block is left."""

    async def leave(connection: Connection) -> None:
        process = await connection.exec(["yes"])
        await process.receive()

    with trio.move_on_after(math.inf) as scope:
        scope.deadline = trio.current_time() + 10
        async with session.connect() as connection:
            await leave(connection)
    assert not scope.cancelled_caught
