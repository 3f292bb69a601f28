from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.inside.messages import (
    MAX_BYTES,
    Decoder,
    MalformedMessage,
    MessageTooLong,
    encode,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
MESSAGES = st.dictionaries(st.text().filter(lambda name: name != "fds"), VALUES, max_size=5)


@given(messages=st.lists(MESSAGES, max_size=5), cuts=st.lists(st.integers(1, 40), max_size=30))
def test_what_is_encoded_comes_out_however_it_is_cut(
    messages: list[dict[str, object]], cuts: list[int]
) -> None:
    data = b"".join(map(encode, messages))
    decoder, seen = Decoder(), []
    for cut in cuts:
        seen += decoder.feed(data[:cut])
        data = data[cut:]
    seen += decoder.feed(data)
    assert seen == messages


def test_names_that_are_no_utf_8() -> None:
    name = b"caf\xe9".decode(errors="surrogateescape")
    assert Decoder().feed(encode({"path": name})) == [{"path": name}]


@pytest.mark.parametrize(
    "body",
    [
        b"no json",
        b"[1]",
        b"\xff",
        b'{"fds": 4}',
        b'{"fds": -1}',
        b'{"fds": true}',
        b'{"fds": "1"}',
        b"[" * 100_000,
    ],
)
def test_malformed(body: bytes) -> None:
    with pytest.raises(MalformedMessage):
        Decoder().feed(struct.pack(">I", len(body)) + body)


def test_bounds() -> None:
    with pytest.raises(MessageTooLong):
        encode({"x": "x" * MAX_BYTES})
    with pytest.raises(MalformedMessage, match="101 bytes"):
        Decoder(max_bytes=100).feed(struct.pack(">I", 101))
    whole = json.dumps({"x": "y"}).encode()
    assert Decoder(max_bytes=100).feed(struct.pack(">I", len(whole)) + whole) == [{"x": "y"}]
