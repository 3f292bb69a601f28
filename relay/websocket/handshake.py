"""The arithmetic of the opening handshake (RFC 6455 §4); the HTTP around it is elsewhere."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence

VERSION = "13"
"""The only protocol version there is (§4.1)."""

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class HandshakeError(Exception):
    """The server's answer to the opening handshake is not a proper one."""


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
    if not fields:
        return ()
    names = tuple(name.strip(" \t") for field in fields for name in field.split(","))
    for name in names:
        if not _TOKEN.fullmatch(name):
            raise ValueError("a subprotocol must be a token (letters, digits, and !#$%&'*+-.^_`|~)")
    if len(set(names)) != len(names):
        raise ValueError("a subprotocol is offered twice")
    return names


def check_answer(
    headers: Iterable[tuple[bytes, bytes]], key: str, offered: Sequence[str]
) -> str | None:
    """Judge the 101 that a server answered (§4.1); return the subprotocol it chose.

    `headers` have their names in lower case.

    Raises:
      HandshakeError: it breaks a rule, and which.
    """
    fields: dict[bytes, list[str]] = {}
    for name, value in headers:
        fields.setdefault(name, []).append(value.decode("latin-1"))
    if [value.lower() for value in fields.get(b"upgrade", ())] != ["websocket"]:
        raise HandshakeError("the server did not switch to the WebSocket protocol")
    connection = {m.strip().lower() for v in fields.get(b"connection", ()) for m in v.split(",")}
    if "upgrade" not in connection:
        raise HandshakeError("the server did not upgrade the connection")
    if fields.get(b"sec-websocket-accept") != [accept_value(key)]:
        raise HandshakeError("the server's Sec-WebSocket-Accept does not belong to our key")
    if b"sec-websocket-extensions" in fields:
        raise HandshakeError("the server uses an extension that was not offered")
    chosen = fields.get(b"sec-websocket-protocol", [])
    if len(chosen) > 1 or (chosen and chosen[0] not in offered):
        raise HandshakeError(f"the server chose a subprotocol that was not offered: {chosen}")
    return chosen[0] if chosen else None
