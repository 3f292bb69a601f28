from __future__ import annotations

import socket
import threading

import pytest

from bench.pattern import Check, Image, frames, pattern
from bench.wire import (
    FrameReader,
    HandshakeFailed,
    Route,
    answer,
    connect,
    messages,
    read_head,
)

IMAGE = Image(pattern())


@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_frames_are_taken_apart_however_they_come(step: int) -> None:
    check = Check(IMAGE)
    reader = FrameReader(check)
    wire = memoryview(frames(pattern(), 1024, None)[:5140] + b"\x89\x02hi" + b"\x88\x02\x03\xe8")
    for at in range(0, len(wire), step):
        assert not reader.closed or at > 5140
        reader.feed(wire[at : at + step])
    assert reader.closed
    assert reader.received == 5120
    assert check.finish(5120).clean


def test_tickets_are_used_up() -> None:
    route = Route(1, websocket=True, targets=("/a", "/b"), uses=2)
    assert [route.target(number) for number in range(5)] == ["/a", "/a", "/b", "/b", None]


def test_a_refusal_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            sock, _ = server.accept()
            with sock:
                read_head(sock)
                sock.sendall(b"HTTP/1.1 401 Unauthorized\r\n\r\nno ticket")

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(HandshakeFailed, match="401"):
            connect(Route(server.getsockname()[1], websocket=True))
        thread.join()


def test_the_answer_is_that_of_the_rfc() -> None:
    """RFC 6455 §1.3 has the example."""
    head = b"GET / HTTP/1.1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer(head)


def test_messages() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"\x81\x02ab\x89\x00\x82\x7e\x00\x80" + bytes(128) + b"\x88\x00")
        assert list(messages(ours, b"")) == [b"ab", bytes(128)]
        theirs.sendall(b"c")
        theirs.shutdown(socket.SHUT_WR)
        assert list(messages(ours, b"\x81\x01")) == [b"c"]
