"""Digest fields (RFC 9530).  Pure."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass

_MEMBER = re.compile(r"\s*([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/]*={0,2}):\s*(?:;[^,]*)?")
_SIZES = {"sha-256": 32, "sha-512": 64}
_WISH = re.compile(r"\s*([a-z*][a-z0-9_.*-]*)\s*=\s*([0-9]{1,2})\s*")


class DigestError(Exception):
    """A digest field is malformed; the message is for the user."""


@dataclass(frozen=True, slots=True)
class Digests:
    """The digests of a content that we can check, in hexadecimal."""

    sha256: str | None = None
    sha512: str | None = None


def parse_digests(*fields: str | None) -> Digests:
    """Read ``Content-Digest`` and ``Repr-Digest``, which mean the same for a whole file.

    Algorithms that are not known are ignored (§5).

    Raises:
      DigestError: a field is malformed, or they contradict each other.
    """
    found: dict[str, str] = {}
    for field in fields:
        if field is None:
            continue
        for member in field.split(","):
            match = _MEMBER.fullmatch(member)
            if match is None:
                raise DigestError("write it like sha-256=:<base64>:")
            algorithm, value = match[1], match[2]
            if algorithm not in _SIZES:
                continue
            try:
                digest = b64decode(value, validate=True)
            except Base64Error as error:
                raise DigestError(f"the value of {algorithm} is not base64") from error
            if len(digest) != _SIZES[algorithm]:
                raise DigestError(f"the value of {algorithm} has {len(digest)} bytes")
            if found.setdefault(algorithm, digest.hex()) != digest.hex():
                raise DigestError(f"there are two different values of {algorithm}")
    return Digests(found.get("sha-256"), found.get("sha-512"))


def digest_field(sha256: str) -> str:
    """Return the value of a digest field for a SHA-256 in hexadecimal."""
    return f"sha-256=:{b64encode(bytes.fromhex(sha256)).decode()}:"


def wants_sha256(field: str | None) -> bool:
    """Tell whether ``Want-Repr-Digest`` asks for SHA-256 (§4)."""
    if field is None:
        return False
    matches = filter(None, map(_WISH.fullmatch, field.split(",")))
    return any(match[1] == "sha-256" and int(match[2]) > 0 for match in matches)
