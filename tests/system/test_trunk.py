"""trunk/1 on the wire: what the specification says, and what happens to those who break it."""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
import trio

from tests.testing.cli import run_cli
from tests.testing.raw_trunk import (
    HEADER,
    HELLO,
    TYPES,
    RawTrunk,
    data_frame,
    frame,
    open_raw,
)
from tests.testing.server_process import ServerProcess

SPECIFICATION = Path(__file__).parents[2] / "docs" / "spec" / "trunk-1.md"
ATTACHMENT = "raw-client-0123456789"


@pytest.fixture
def ws_url(created: dict[str, Any]) -> str:
    url = created["attach"]["ws_url"]
    assert isinstance(url, str)
    return url


@pytest.fixture
def token(created: dict[str, Any]) -> str:
    value = created["attach"]["token"]
    assert isinstance(value, str)
    return value


def attach_frame(stream: int = 1, **request: Any) -> bytes:
    fields = {"attachment": ATTACHMENT, "kind": "exec", "tag": "raw"} | request
    return frame("ATTACH", fields, stream=stream)


def start(*command: str) -> dict[str, Any]:
    return {"command": list(command)}


def test_the_table_of_frames_is_that_of_the_specification() -> None:
    rows = re.findall(
        r"^\| 0x([0-9a-f]{2}) \| ([A-Z]+) \|", SPECIFICATION.read_text(), re.MULTILINE
    )
    assert {name: int(number, 16) for number, name in rows} == TYPES


# ---------------------------------------------------------------- as it should be


async def test_a_life_of_a_stream(ws_url: str, token: str) -> None:
    async with open_raw(ws_url, token) as trunk:
        answer = await trunk.attach(start=start("sh", "-c", "cat; echo oops >&2; exit 7"))
        fields = answer.fields
        assert fields["tag"] == "raw"
        assert fields["kind"] == "exec"
        assert fields["mode"] == "control"
        assert fields["started"] is True
        assert fields.get("resumed", False) is False
        assert fields["from"] == {1: 0, 2: 0}
        assert fields.get("accepted", 0) == 0
        assert fields["credit"] >= 64 * 1024
        assert fields["pid"] > 1
        await trunk.send(data_frame(1, 0, 0, b"hello "), data_frame(1, 0, 6, b"world\n"))
        assert await trunk.read_output(1, b"\n") == b"hello world\n"
        await trunk.send(frame("FIN", {"at": 12}, stream=1))
        ended = await trunk.expect("EXIT")
        assert ended.fields == {"code": 7}
        # EXIT follows the FIN of every output channel, and that the last byte.
        names = [(f.name, f.channel) for f in trunk.seen if f.name in {"DATA", "FIN", "EXIT"}]
        assert names.index(("FIN", 2)) > names.index(("DATA", 2))
        assert names[-1] == ("EXIT", 0)
        fins = {f.channel: f.fields["at"] for f in trunk.seen if f.name == "FIN"}
        assert fins == {1: 12, 2: 5}
        await trunk.send(frame("DETACH", {}, stream=1))
        closed = await trunk.expect("CLOSED")
        assert closed.fields["reason"] == "detached"


async def test_ping(ws_url: str, token: str) -> None:
    async with open_raw(ws_url, token) as trunk:
        await trunk.send(frame("PING", {"id": 17}))
        assert (await trunk.expect("PONG")).fields == {"id": 17}
        # A flood of pings costs the server one answer at a time.
        await trunk.send(*(frame("PING", {"id": n}) for n in range(5000)))
        while (await trunk.expect("PONG")).fields["id"] != 4999:
            pass


async def test_ping_of_the_websocket(ws_url: str, token: str) -> None:
    async with open_raw(ws_url, token) as trunk:
        with trio.fail_after(10):
            await trunk.websocket.ping(b"there?")


async def test_frames_in_pieces(ws_url: str, token: str) -> None:
    """A receiver may not rely on messages and frames being the same."""
    async with open_raw(ws_url, token, greet=False) as trunk:
        frames = HELLO + attach_frame(start=start("cat"), window={1: 1000})
        frames += frame(0x7F, b"\xff" * 100, stream=9) + frame("PING", {"id": 1, "new": [1]})
        for n in range(len(frames)):
            await trunk.send(frames[n : n + 1])
        assert (await trunk.receive()).name == "HELLO"
        await trunk.expect("ATTACHED")
        await trunk.send(data_frame(1, 0, 0, b"ab") + data_frame(1, 0, 2, b"c\n"))
        assert await trunk.read_output(1, b"\n") == b"abc\n"


async def test_credit_is_kept(ws_url: str, token: str) -> None:
    """Not a byte beyond it, and all of it."""
    async with open_raw(ws_url, token) as trunk:
        await trunk.attach(start=start("seq", "1", "1000000"), window={1: 1000})
        got = 0
        limit = 1000
        for _ in range(20):
            while got < limit:
                one = await trunk.expect("DATA")
                assert one.offset == got
                got += len(one.data)
                assert got <= limit
            # Nothing else is on its way: a ping is answered before any byte could come.
            await trunk.send(frame("PING", {"id": limit}))
            assert (await trunk.receive()).name == "PONG"
            limit += 777
            await trunk.send(frame("CREDIT", {"up_to": limit}, stream=1, channel=1))


async def test_resume_at_the_byte(ws_url: str, token: str) -> None:
    """Output goes on at `have`, input at `accepted`, over another link."""
    script = "read x; echo got $x; read y; echo got $y; exit 3"
    async with open_raw(ws_url, token) as trunk:
        answer = await trunk.attach(start=start("sh", "-c", script))
        await trunk.send(data_frame(1, 0, 0, b"one\ntw"))
        assert await trunk.read_output(1, b"\n") == b"got one\n"
        await trunk.send(frame("PING", {"id": 1}))  # what came before was taken when it returns
        await trunk.expect("PONG")
    async with open_raw(ws_url, token) as trunk:
        resume = {"stream": answer.fields["stream"], "have": {1: 4, 2: 0}}
        again = await trunk.attach(resume=resume)
        assert again.fields["resumed"] is True
        assert again.fields["stream"] == answer.fields["stream"]
        assert again.fields["from"] == {1: 4, 2: 0}
        assert again.fields["accepted"] == 6
        assert await trunk.read_output(1, b"\n") == b"one\n"
        await trunk.send(data_frame(1, 0, 6, b"o\n"))
        assert await trunk.read_output(1, b"\n") == b"got two\n"
        assert (await trunk.expect("EXIT")).fields == {"code": 3}


async def test_an_older_link_is_fenced_off(ws_url: str, token: str) -> None:
    async with open_raw(ws_url, token) as old:
        answer = await old.attach(start=start("cat"))
        async with open_raw(ws_url, token) as new:
            resume = {"stream": answer.fields["stream"], "have": {1: 0, 2: 0}}
            await new.attach(resume=resume)
            closed = await old.expect("CLOSED")
            assert closed.fields["reason"] == "superseded"
            # Late input of the old link goes nowhere, and harms nothing.
            await old.send(
                data_frame(1, 0, 0, b"late\n"), frame("RESIZE", {"columns": 1, "rows": 1}, stream=1)
            )
            await old.send(frame("PING", {"id": 1}))
            await old.expect("PONG")
            await new.send(data_frame(1, 0, 0, b"new\n"))
            assert await new.read_output(1, b"\n") == b"new\n"


async def test_a_gap_is_told(ws_url: str, token: str) -> None:
    """What a bounded ring dropped while nobody was there comes as GAP, exactly."""
    async with open_raw(ws_url, token) as trunk:
        wish = {"command": ["sh", "-c", "seq 1 400000; sleep 100"], "overflow": "drop_oldest"}
        answer = await trunk.attach(start=wish, policy="skip", window={1: 100})
        await trunk.expect("DATA")
    expected = "".join(f"{n}\n" for n in range(1, 400_001)).encode()
    async with open_raw(ws_url, token) as trunk:
        resume = {"stream": answer.fields["stream"], "have": {1: 10, 2: 0}}
        position = 10
        await trunk.attach(resume=resume, policy="skip")
        gaps = 0
        while position < len(expected):
            one = await trunk.receive()
            if one.name == "GAP":
                assert one.fields["from"] == position
                position = one.fields["to"]
                gaps += 1
            elif one.name == "DATA":
                assert one.offset == position
                position += len(one.data)
                assert one.data == expected[one.offset : position]
            # After a gap, too: the next byte may be beyond what was granted.
            credit = {"ack": position, "up_to": position + (1 << 20)}
            await trunk.send(frame("CREDIT", credit, stream=1, channel=1))
        assert gaps >= 1
        assert position == len(expected)


async def test_control_passes_the_flood(ws_url: str, token: str) -> None:
    """A client that takes no more output still gets its signal through, and its answer."""
    async with open_raw(ws_url, token) as trunk:
        await trunk.attach(start=start("yes"), window={1: 100_000})
        await trunk.send(frame("SIGNAL", {"number": 1, "name": "INT"}, stream=1))
        await trunk.send(frame("CREDIT", {"up_to": 1 << 30}, stream=1, channel=1))
        assert await trunk.wait_exit() == {"signal": "INT"}


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"kind": "pty", "tag": "none"}, "not_found"),
        ({"kind": "exec", "tag": "none", "mode": "view"}, "not_found"),
        ({"kind": "exec", "tag": "n", "mode": "view", "start": {"command": ["ls"]}}, "forbidden"),
        ({"kind": "file", "tag": "f", "start": {}}, "forbidden"),
        ({"kind": "exec", "tag": "x", "start": {"command": ["/no/such"]}}, "start_failed"),
        ({"kind": "exec", "tag": "x", "start": {"directory": "/no/such"}}, "start_failed"),
        ({"kind": "exec", "tag": "x", "start": {"environment": {"1": "2"}}}, "start_failed"),
        ({"kind": "exec", "tag": "x", "resume": {"stream": "x", "have": {1: 0}}}, "gone"),
    ],
)
async def test_refusals(ws_url: str, token: str, request_: dict[str, Any], code: str) -> None:
    async with open_raw(ws_url, token) as trunk:
        await trunk.send(attach_frame(1, **request_))
        refused = await trunk.expect("REFUSED")
        assert refused.fields["code"] == code
        assert refused.fields["message"]
        # The link is none the worse for it.
        await trunk.attach(stream=3, start=start("true"), tag="good")
        assert (await trunk.expect("EXIT")).fields == {"code": 0}


async def test_conflicting_and_busy(ws_url: str, token: str) -> None:
    async with open_raw(ws_url, token) as trunk:
        await trunk.attach(start=start("cat"))
        await trunk.send(attach_frame(3, attachment="b" * 20, kind="pty"))
        assert (await trunk.expect("REFUSED")).fields["code"] == "conflict"
        await trunk.send(attach_frame(5, attachment="b" * 20))
        assert (await trunk.expect("REFUSED")).fields["code"] == "busy"
        await trunk.send(attach_frame(7, attachment="b" * 20, takeover=True))
        one, two = [await trunk.receive(), await trunk.receive()]
        assert {(one.name, one.stream), (two.name, two.stream)} == {("CLOSED", 1), ("ATTACHED", 7)}


# ---------------------------------------------------------------- as it should not be

OPEN = "an attached stream 1"


def _deep(depth: int) -> bytes:
    return b"\x81\xa1a" * depth + b"\xc0"


BREACHES: dict[str, list[bytes]] = {
    "no HELLO": [frame("PING", {"id": 1})],
    "bytes before HELLO": [data_frame(1, 0, 0, b"x")],
    "a version from the future": [frame("HELLO", {"version": 2})],
    "a HELLO without a version": [frame("HELLO", {})],
    "two HELLOs": [HELLO, HELLO],
    "no msgpack": [frame("HELLO", b"\xc1\xc1\xc1")],
    "no map": [frame("HELLO", msgpack.packb([1, 2]))],
    "an empty payload": [HELLO, frame("PING", b"")],
    "trailing garbage": [HELLO, frame("PING", msgpack.packb({"id": 1}) + b"\x00")],
    "a map nested too deep": [HELLO, frame("PING", _deep(20_000))],
    "a huge map announced": [HELLO, frame("PING", b"\xdf\xff\xff\xff\xff")],
    "huge bytes announced": [HELLO, frame("PING", b"\x81\xa2id\xc6\xff\xff\xff\xff")],
    "a wrong type": [HELLO, frame("PING", {"id": "x"})],
    "a negative id": [HELLO, frame("PING", {"id": -1})],
    "a control frame too long": [HELLO, HEADER.pack(0x0D, 0, 0, 0, 0, 65 * 1024)],
    "an unknown frame too long": [HELLO, HEADER.pack(0x77, 0, 0, 0, 0, 0xFFFFFFFF)],
    "bytes too long": [HELLO, HEADER.pack(0x01, 0, 0, 0, 1, (1 << 20) + 9)],
    "bytes without an offset": [HELLO, HEADER.pack(0x01, 0, 0, 0, 1, 4) + b"abcd"],
    "empty bytes": [HELLO, data_frame(1, 0, 0, b"")],
    "a stream that never was": [HELLO, data_frame(99, 0, 0, b"x")],
    "credit for a stream that never was": [HELLO, frame("CREDIT", {"up_to": 1}, stream=7)],
    "a stream of the other side": [HELLO, attach_frame(2)],
    "stream 0": [HELLO, attach_frame(0)],
    "an id used twice": [HELLO, attach_frame(3, tag="none"), attach_frame(3, tag="none")],
    "an id that goes back": [HELLO, attach_frame(5, tag="none"), attach_frame(3, tag="none")],
    "a tag with a slash": [HELLO, attach_frame(1, tag="../x")],
    "a tag too long": [HELLO, attach_frame(1, tag="x" * 65)],
    "a tag with a line feed": [HELLO, attach_frame(1, tag="x\n")],
    "a short attachment id": [HELLO, attach_frame(1, attachment="short")],
    "an unknown kind": [HELLO, attach_frame(1, kind="bomb")],
    "an unknown mode": [HELLO, attach_frame(1, mode="god")],
    "a NUL in a command": [HELLO, attach_frame(1, start={"command": ["a\0b"]})],
    "a size of nothing": [HELLO, attach_frame(1, columns=0, rows=0)],
    "a window below nothing": [HELLO, attach_frame(1, window={1: -1})],
    "a window beyond offsets": [HELLO, attach_frame(1, window={1: 1 << 63})],
    "an owner's frame": [HELLO, attach_frame(1, tag="none"), frame("EXIT", {"code": 0}, stream=1)],
    "random bytes": [random.Random(5).randbytes(100_000)],
    "zeros": [bytes(100_000)],
}
BREACHES_OF_A_STREAM: dict[str, list[bytes]] = {
    "a hole in the input": [data_frame(1, 0, 5, b"x")],
    "input again": [data_frame(1, 0, 0, b"abc"), data_frame(1, 0, 0, b"abc")],
    "more than credit": [data_frame(1, 0, n << 16, bytes(1 << 16)) for n in range(8)],
    "output": [data_frame(1, 1, 0, b"x")],
    "a channel there is none of": [data_frame(1, 7, 0, b"x")],
    "an offset beyond all": [data_frame(1, 0, (1 << 63) + 1, b"x")],
    "an early end": [frame("FIN", {"at": 17}, stream=1)],
    "bytes after the end": [frame("FIN", {"at": 0}, stream=1), data_frame(1, 0, 0, b"x")],
    "an ack of what never came": [frame("CREDIT", {"ack": 1 << 40}, stream=1, channel=1)],
    "credit beyond offsets": [frame("CREDIT", {"up_to": 1 << 63}, stream=1, channel=1)],
    "a second ATTACH on its id": [attach_frame(1)],
    "a GAP": [frame("GAP", {"from": 0, "to": 5}, stream=1, channel=0)],
    "a size of nothing": [frame("RESIZE", {"columns": 0, "rows": 5}, stream=1)],
    "a signal with a bad name": [frame("SIGNAL", {"number": 1, "name": "a b"}, stream=1)],
}


@asynccontextmanager
async def healthy(ws_url: str, server: ServerProcess, session_id: str) -> AsyncIterator[None]:
    """A client beside the hostile one, which must not notice."""
    token = await trio.to_thread.run_sync(server.ticket, session_id)
    async with open_raw(ws_url, token) as trunk:
        await trunk.attach(start=start("cat"), tag="healthy", attachment="healthy-0123456789")
        await trunk.send(data_frame(1, 0, 0, b"before\n"))
        assert await trunk.read_output(1, b"\n") == b"before\n"
        yield
        await trunk.send(data_frame(1, 0, 7, b"after\n"))
        assert await trunk.read_output(1, b"\n") == b"after\n"
        await trunk.send(frame("SIGNAL", {"number": 1, "name": "KILL"}, stream=1))
        await trunk.expect("EXIT")


async def expect_protocol_error(trunk: RawTrunk, what: str) -> None:
    goaway, closed = await trunk.wait_closed()
    assert goaway is not None, f"{what}: no GOAWAY, but {closed}"
    assert goaway.fields["reason"] == "protocol_error", what
    assert 3 < len(goaway.fields["message"]) < 500
    assert (closed.code, closed.reason) == (1002, "protocol_error"), what


async def test_breaches(server: ServerProcess, ws_url: str, token: str, session_id: str) -> None:
    """Whoever breaks a rule is told which, and nobody else notices."""
    async with healthy(ws_url, server, session_id):
        for what, frames in BREACHES.items():
            async with open_raw(ws_url, token, greet=False) as trunk:
                await trunk.send(*frames)
                await expect_protocol_error(trunk, what)


async def test_breaches_of_a_stream(
    server: ServerProcess, ws_url: str, token: str, session_id: str
) -> None:
    async with healthy(ws_url, server, session_id):
        for number, (what, frames) in enumerate(BREACHES_OF_A_STREAM.items()):
            async with open_raw(ws_url, token) as trunk:
                tag, attachment = f"hostile-{number}", f"hostile-0123456789-{number}"
                await trunk.attach(
                    start=start("sleep", "1000"), tag=tag, attachment=attachment, window={1: 0}
                )
                await trunk.send(*frames)
                await expect_protocol_error(trunk, what)


async def test_harmless_oddities(ws_url: str, token: str) -> None:
    """What a later version may send, or a late frame, is let pass."""
    async with open_raw(ws_url, token) as trunk:
        await trunk.attach(start=start("cat") | {"novel": 1}, novel={"a": [1, 2]})
        await trunk.send(
            frame(0x55, b"\x00\xff", stream=1),
            frame("PING", {"id": 1, "novel": True}, flags=0xFF),
            frame("SIGNAL", {"number": 1, "name": "NOSUCH"}, stream=1),
            frame("RESIZE", {"columns": 5, "rows": 5}, stream=1),  # of no terminal
            frame("STOP", {}, stream=1, channel=2),
            frame("STOP", {}, stream=1, channel=9),
            frame("CREDIT", {"up_to": 5}, stream=1, channel=9),
            frame("CREDIT", {}, stream=1, channel=1),
            frame("DETACH", {}, stream=1),
            data_frame(1, 0, 0, b"late"),
            frame("CREDIT", {"up_to": 1 << 40}, stream=1, channel=1),
            frame("DETACH", {}, stream=1),
            frame("PING", {"id": 2}),
        )
        assert (await trunk.expect("CLOSED")).fields["reason"] == "detached"
        while (await trunk.expect("PONG")).fields["id"] != 2:
            pass


async def test_a_text_message(ws_url: str, token: str) -> None:
    async with open_raw(ws_url, token) as trunk:
        await trunk.websocket.send_message("hello")
        goaway, closed = await trunk.wait_closed()
        assert closed.code in (1002, 1003)
        assert goaway is None or goaway.fields["reason"] == "protocol_error"


async def test_too_many_streams(ws_url: str, token: str) -> None:
    """A link holds 256; a session starts far fewer processes."""
    async with open_raw(ws_url, token) as trunk:
        for n in range(70):
            await trunk.send(
                attach_frame(
                    2 * n + 1, tag=f"t{n}", attachment=f"many-0123456789-{n}", start=start("cat")
                )
            )
        answers = [await trunk.receive() for _ in range(70)]
        refused = [a for a in answers if a.name == "REFUSED"]
        assert len(refused) == 70 - 64
        assert {a.fields["code"] for a in refused} == {"limit"}


async def test_an_expired_link_says_so(server: ServerProcess) -> None:
    created = await trio.to_thread.run_sync(server.create_session, 1)
    attach = created["attach"]
    async with open_raw(attach["ws_url"], attach["token"]) as trunk:
        await trunk.attach(start=start("cat"))
        goaway, closed = await trunk.wait_closed()
        assert goaway is not None
        assert goaway.fields["reason"] == "expired"
        assert (closed.code, closed.reason) == (1008, "expired")
        assert [f.fields["reason"] for f in trunk.seen if f.name == "CLOSED"] == ["expired"]


async def test_abrupt_ends_leave_the_stream(
    env: dict[str, str], ws_url: str, token: str, session_id: str
) -> None:
    """A client that vanishes without a word can be followed by another, which sees it all."""
    command = ("sh", "-c", "echo begun; read x; echo $x")
    async with open_raw(ws_url, token) as trunk:
        await trunk.attach(start=start(*command))
        await trunk.read_output(1, b"begun\n")
    ended = await run_cli(env, "exec", session_id, "--tag", "raw", "--", *command, stdin=b"word\n")
    assert (ended.code, ended.stdout) == (0, b"begun\nword\n"), ended.errors
