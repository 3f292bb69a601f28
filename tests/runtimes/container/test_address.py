"""Addresses of engines."""

from __future__ import annotations

import ssl

import pytest

from runtimes.container.address import EngineAddress

TLS = ssl.create_default_context()


@pytest.mark.parametrize(
    ("text", "context", "shown"),
    [
        ("unix:///run/docker.sock", None, "unix:///run/docker.sock"),
        ("tcp://host", None, "http://host:2375"),
        ("tcp://host:99/", None, "http://host:99"),
        ("tcp://host", TLS, "https://host:2376"),
        ("tcp://[::1]:5", TLS, "https://[::1]:5"),
        ("https://host", None, "https://host:2376"),
    ],
)
def test_what_is_taken(text: str, context: ssl.SSLContext | None, shown: str) -> None:
    address = EngineAddress.parse(text, context)
    assert str(address) == shown
    assert (address.ssl_context is not None) == shown.startswith("https")


@pytest.mark.parametrize(
    "text",
    ["", "unix://docker.sock", "unix://host/x", "/run/docker.sock", "tcp://", "ssh://host"]
    + ["tcp://user@host", "tcp://host/path", "tcp://host:port", "tcp://host:1?x", "tcp://["],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="the engine's address"):
        EngineAddress.parse(text)
