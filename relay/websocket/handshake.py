"""The arithmetic of the opening handshake (RFC 6455 §4); the HTTP around it is elsewhere."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

VERSION = "13"
"""The only protocol version there is (§4.1)."""

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def make_key(entropy: bytes) -> str:
    """Return a ``Sec-WebSocket-Key`` from 16 random bytes."""
    if len(entropy) != 16:
        raise ValueError("a WebSocket key is made from 16 bytes")
    return base64.b64encode(entropy).decode("ascii")


def is_valid_key(key: str) -> bool:
    """Tell whether `key` is the base64 of 16 bytes (§4.2.1)."""
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def accept_value(key: str) -> str:
    """Return the ``Sec-WebSocket-Accept`` that answers `key` (§4.2.2)."""
    digest = hashlib.sha1((key + _GUID).encode(), usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


def parse_subprotocols(fields: list[str]) -> tuple[str, ...]:
    """Return the subprotocols offered in the ``Sec-WebSocket-Protocol`` fields, best first (§4.1).

    Raises:
      ValueError: one is not a token, or is offered twice.
    """
    names = tuple(name.strip(" \t") for field in fields for name in field.split(","))
    for name in names:
        if not _TOKEN.fullmatch(name):
            raise ValueError("a subprotocol must be a token (letters, digits, and !#$%&'*+-.^_`|~)")
    if len(set(names)) != len(names):
        raise ValueError("a subprotocol is offered twice")
    return names
