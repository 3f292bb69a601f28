"""Judging request heads, without I/O."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.heads import BadRequest, Head, Upgrade, explain_garbage, read_head, read_upgrade

HANDSHAKE = (
    "GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


def parse(text: str) -> Head:
    raw = text.encode("latin-1")
    conn = h11.Connection(h11.SERVER)
    conn.receive_data(raw)
    request = conn.next_event()
    assert isinstance(request, h11.Request)
    return read_head(raw, request)


def test_what_a_head_says() -> None:
    head = parse(
        "POST /a%2Fb/%E2%82%AC?x=%20&y HTTP/1.1\r\nHost: h\r\nX-List: a, B\r\nx-list: ,c\r\n"
        "Content-Length: 3\r\nExpect: 100-Continue\r\n\r\n"
    )
    assert (head.method, head.http_version) == ("POST", "1.1")
    assert head.path == "/a/b/€"
    assert head.raw_path == b"/a%2Fb/%E2%82%AC"
    assert head.query == b"x=%20&y"
    assert head.values(b"x-list") == [b"a, B", b",c"]
    assert head.items(b"x-list") == [b"a", b"b", b"c"]
    assert head.hosts == [b"h"]
    assert head.has_body
    assert head.expects_continue
    assert not head.wants_websocket


@pytest.mark.parametrize(
    ("line", "hosts", "path", "query"),
    [
        ("GET http://other:1/x?y HTTP/1.1", [b"other:1"], "/x", b"y"),
        ("GET HTTPS://other HTTP/1.1", [b"other"], "/", b""),
        ("GET http://other?y HTTP/1.1", [b"other"], "/", b"y"),
        ("GET //other/x HTTP/1.1", [b"h"], "//other/x", b""),
    ],
)
def test_absolute_targets(line: str, hosts: list[bytes], path: str, query: bytes) -> None:
    head = parse(f"{line}\r\nHost: h\r\n\r\n")
    assert (head.hosts, head.path, head.query) == (hosts, path, query)


@pytest.mark.parametrize("target", ["*", "x", "a:1", "ftp://h/", "http:///x", "/x#y"])
def test_other_targets_are_refused(target: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(f"OPTIONS {target} HTTP/1.1\r\nHost: h\r\n\r\n")
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ("X: a\n", "CR LF"),
        ("X: a\r\n b\r\n", "folded"),
        ("X: a\r\n\tb\r\n", "folded"),
        ("Content-Length: 1\r\ncontent-length: 1\r\n", "more than one"),
        ("Content-Length: 1,1\r\n", "more than one"),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", "both"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(fields: str, match: str) -> None:
    with pytest.raises(BadRequest, match=match) as caught:
        parse(f"POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
    assert caught.value.status == 400


def test_versions() -> None:
    assert parse("GET / HTTP/1.0\r\nHost: h\r\n\r\n").http_version == "1.0"
    assert parse("GET / HTTP/1.9\r\nHost: h\r\n\r\n").http_version == "1.1"
    with pytest.raises(BadRequest, match=r"HTTP/2\.0") as caught:
        parse("GET / HTTP/2.0\r\nHost: h\r\n\r\n")
    assert caught.value.status == 505
    with pytest.raises(BadRequest, match="no Transfer-Encoding"):
        parse("POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")


def test_upgrades() -> None:
    head = parse(HANDSHAKE + "Sec-WebSocket-Protocol: a, b\r\n\r\n")
    assert head.wants_websocket
    assert read_upgrade(head) == Upgrade("dGhlIHNhbXBsZSBub25jZQ==", ("a", "b"))
    assert not parse(HANDSHAKE.replace("GET", "PUT") + "\r\n").wants_websocket
    assert not parse(HANDSHAKE.replace("keep-alive, Upgrade", "close") + "\r\n").wants_websocket
    assert not parse(HANDSHAKE.replace("WebSocket\r\n", "h2c\r\n", 1) + "\r\n").wants_websocket


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        ("Version: 13", "Version: 12", 426),
        ("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 13", 426),
        ("Sec-WebSocket-Version: 13\r\n", "", 426),
        ("Sec-WebSocket-Key: dGhl", "Sec-WebSocket-Key: ", 400),
        ("Sec-WebSocket-Key", "X", 400),
        ("Host: h", "Host: h\r\nContent-Length: 5", 400),
        ("Host: h", "Host: h\r\nTransfer-Encoding: chunked", 400),
        ("Host: h", "Host: h\r\nSec-WebSocket-Protocol: a, a", 400),
    ],
)
def test_bad_upgrades(old: str, new: str, status: int) -> None:
    with pytest.raises(BadRequest) as caught:
        read_upgrade(parse(HANDSHAKE.replace(old, new) + "\r\n"))
    assert caught.value.status == status


def test_garbage_is_explained() -> None:
    assert "plain HTTP, not TLS" in explain_garbage(b"\x16\x03\x01", error(400)).detail
    assert explain_garbage(b"GET", error(431)).status == 431
    assert "what h11 says" in explain_garbage(b"GET", error(400)).detail


def error(status: int) -> h11.RemoteProtocolError:
    return h11.RemoteProtocolError("what h11 says", status)


@given(st.binary(max_size=200), st.sampled_from([b"", b"GET / HTTP/1.1\r\nHost: h\r\n"]))
def test_garbage_raises_only_the_documented_error(garbage: bytes, prefix: bytes) -> None:
    raw = prefix + garbage + b"\r\n\r\n"
    conn = h11.Connection(h11.SERVER)
    conn.receive_data(raw)
    try:
        request = conn.next_event()
    except h11.RemoteProtocolError as failure:
        assert 400 <= explain_garbage(raw, failure).status < 600  # noqa: PT017 - either way is fine
        return
    assert isinstance(request, h11.Request)
    head_bytes = raw[: len(raw) - len(conn.trailing_data[0])]
    try:
        head = read_head(head_bytes, request)
    except BadRequest:
        return
    assert head.path.startswith("/")
    assert len(head.values(b"content-length")) <= 1
