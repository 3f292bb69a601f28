"""The arithmetic of the opening handshake."""

from __future__ import annotations

import pytest

from relay.websocket.handshake import accept_value, is_valid_key, make_key, parse_subprotocols


def test_the_example_of_the_rfc() -> None:
    # RFC 6455 section 1.3.
    assert accept_value("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_keys() -> None:
    key = make_key(b"the sample nonce")
    assert key == "dGhlIHNhbXBsZSBub25jZQ=="
    assert is_valid_key(key)
    for bad in ("", "AAAA", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ==\n", "é" * 24):
        assert not is_valid_key(bad)
    with pytest.raises(ValueError, match="16 bytes"):
        make_key(b"short")


def test_subprotocols() -> None:
    assert parse_subprotocols([]) == ()
    assert parse_subprotocols(["a, b", "\tc "]) == ("a", "b", "c")
    assert parse_subprotocols(["trunk.1", "trunk.ticket.ey_J-0.x.y"])[0] == "trunk.1"
    for bad in (["a b"], ["a,,b"], [""], ["a/1"], ["a", "a"], ['"a"']):
        with pytest.raises(ValueError, match="subprotocol"):
            parse_subprotocols(bad)
