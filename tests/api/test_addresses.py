from __future__ import annotations

import pytest

from api.addresses import HostError, pty_url, websocket_base


@pytest.mark.parametrize(
    ("scheme", "host", "public_url", "expected"),
    [
        ("http", "127.0.0.1:8080", None, "ws://127.0.0.1:8080"),
        ("https", "shell.example.com", None, "wss://shell.example.com"),
        ("http", "[::1]:8080", None, "ws://[::1]:8080"),
        ("http", "my_service", None, "ws://my_service"),
        ("http", None, "https://a.example", "wss://a.example"),
        ("https", "x", "http://a.example:81/p/", "ws://a.example:81/p"),
    ],
)
def test_base(scheme: str, host: str | None, public_url: str | None, expected: str) -> None:
    assert websocket_base(scheme, host, public_url) == expected
    assert pty_url(expected, "ID") == f"{expected}/v1/sessions/ID/pty"


@pytest.mark.parametrize(
    "host", [None, "", "a b", "a/b", "a@b", "a\x00", "[::1", "a:123456", "a:b", "ä", "a\n", "a?b"]
)
def test_no_host(host: str | None) -> None:
    with pytest.raises(HostError, match="Host"):
        websocket_base("http", host, None)
