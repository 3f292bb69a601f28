"""The client's side of a file operation, whatever the other side tells."""

from __future__ import annotations

import json

import pytest
import trio

from relay.endpoint import Channel, Endpoint, FileOperation, Kind, StartRequest
from relay.errors import AttachmentClosed
from relay.file_problems import FileProblem
from relay.file_stream import MAX_TOLD, FileFailed, open_file_stream
from relay.protocol.messages import FileStart
from relay.protocol.reasons import CloseReason
from tests.testing.endpoints import BrokenSink, BytesSource, ManualSource, ScriptedEndpoint
from tests.testing.relay_world import open_world

READ = FileStart(operation=FileOperation.READ, path="f")
WRITE = FileStart(operation=FileOperation.WRITE, path="f")
STAT = FileStart(operation=FileOperation.STAT, path="f")


def told(*lines: object) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def endpoint(content: bytes, words: bytes) -> ScriptedEndpoint:
    return ScriptedEndpoint(
        {Channel.OUTPUT: BytesSource(content), Channel.ERROR: BytesSource(words)}
    )


async def test_reading(autojump_clock: object) -> None:
    made: list[StartRequest] = []

    def start(request: StartRequest) -> Endpoint:
        made.append(request)
        return endpoint(b"content", told({"size": 7}, {"sent": 7}))

    async with open_world(start) as world, world.trunk() as trunk:
        async with open_file_stream(trunk, READ) as stream:
            assert await stream.head() == {"size": 7}
            pieces = []
            while piece := await stream.receive():
                pieces.append(piece)
            assert b"".join(pieces) == b"content"
            assert await stream.result() == {"sent": 7}
        await world.settle()
        assert world.host.statistics() == ()
    (request,) = made
    assert request.kind is Kind.FILE
    assert request.file is not None
    assert request.file.path == "f"


async def test_the_head_may_be_passed_over(autojump_clock: object) -> None:
    async with (
        open_world(lambda _: endpoint(b"", told({"offset": 0}, {"size": 1}))) as world,
        world.trunk() as trunk,
        open_file_stream(trunk, WRITE) as stream,
    ):
        assert await stream.finish() == {"size": 1}


@pytest.mark.parametrize(
    ("words", "problem", "message", "offset"),
    [
        (told({"error": "range", "message": "no", "offset": 5}), "range", "no", 5),
        (told({"error": "invented", "message": "x", "offset": "5"}), "failed", "x", None),
        (told({"error": "not_found"}), "not_found", "", None),
        (b"", "failed", "without saying how", None),
        (b'{"half', "failed", "without saying how", None),
        (b"[1]\n", "failed", "not understood", None),
        (b"nonsense\n", "failed", "not understood", None),
        (b"x" * (MAX_TOLD * 2), "failed", "without saying how", None),
    ],
)
async def test_failures(
    autojump_clock: object, words: bytes, problem: str, message: str, offset: int | None
) -> None:
    async with (
        open_world(lambda _: endpoint(b"", words)) as world,
        world.trunk() as trunk,
        open_file_stream(trunk, STAT) as stream,
    ):
        with pytest.raises(FileFailed) as caught:
            await stream.result()
        assert caught.value.problem is FileProblem(problem)
        assert message in caught.value.message
        assert caught.value.offset == offset


async def test_content_that_nobody_takes_says_why(autojump_clock: object) -> None:
    words = ManualSource()

    def start(_: StartRequest) -> Endpoint:
        return ScriptedEndpoint(
            {Channel.OUTPUT: ManualSource(), Channel.ERROR: words}, BrokenSink()
        )

    async with (
        open_world(start) as world,
        world.trunk() as trunk,
        open_file_stream(trunk, WRITE) as stream,
    ):
        words.write(told({"error": "no_space", "message": "full"}))
        with pytest.raises(FileFailed, match="full"):
            while True:
                await stream.send(bytes(65536))


async def test_the_session_ends_meanwhile(autojump_clock: object) -> None:
    def start(_: StartRequest) -> Endpoint:
        return ScriptedEndpoint({Channel.OUTPUT: ManualSource(), Channel.ERROR: ManualSource()})

    async with (
        open_world(start) as world,
        world.trunk() as trunk,
        open_file_stream(trunk, READ) as stream,
    ):
        world.host.end(CloseReason.EXPIRED)
        with trio.fail_after(10), pytest.raises(AttachmentClosed) as caught:
            await stream.head()
        assert caught.value.reason is CloseReason.EXPIRED
