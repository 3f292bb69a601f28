"""The channels of exec, byte by byte."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.endpoint import TerminalSize
from runtimes.kubernetes.channels import (
    ChannelError,
    Splitter,
    end_of_input_message,
    input_message,
    read_exit_code,
    resize_message,
)


def test_messages() -> None:
    assert input_message(b"abc") == b"\x00abc"
    assert end_of_input_message() == b"\xff\x00"
    message = resize_message(TerminalSize(columns=132, rows=43))
    assert message[0] == 4
    assert json.loads(message[1:]) == {"Width": 132, "Height": 43}


@given(
    st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40)), max_size=8),
    st.integers(1, 7),
)
def test_messages_in_pieces_of_any_size(messages: list[tuple[int, bytes]], size: int) -> None:
    splitter = Splitter()
    got: dict[int, bytes] = {}
    for channel, content in messages:
        whole = bytes((channel,)) + content
        pieces = [whole[start : start + size] for start in range(0, len(whole), size)]
        for index, piece in enumerate(pieces):
            if found := splitter.feed(piece, final=index == len(pieces) - 1):
                assert found[0] == channel
                got[channel] = got.get(channel, b"") + bytes(found[1])
    wanted: dict[int, bytes] = {}
    for channel, content in messages:
        wanted[channel] = wanted.get(channel, b"") + content
    assert got == {channel: content for channel, content in wanted.items() if content}


def test_a_message_without_a_channel() -> None:
    splitter = Splitter()
    assert splitter.feed(b"", final=False) is None
    with pytest.raises(ChannelError, match="without a channel"):
        splitter.feed(b"", final=True)


def test_exit_codes() -> None:
    assert read_exit_code(b'{"metadata":{},"status":"Success"}') == 0
    causes = [{"reason": "ExitCode", "message": "137"}]
    failure = {"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}
    assert read_exit_code(json.dumps(failure).encode()) == 137


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (b"", "nothing was told"),
        (b"not json", "not json"),
        (b"[1]", r"\[1\]"),
        (b'{"status":"Failure","message":"no such container"}', "no such container"),
        (b'{"status":"Failure","reason":"NonZeroExitCode","message":"m"}', "m"),
        (b'{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[3]}}', "details"),
    ],
)
def test_what_is_no_exit_code(status: bytes, words: str) -> None:
    with pytest.raises(ChannelError, match=words):
        read_exit_code(status)
