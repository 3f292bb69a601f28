"""The header fields of the tus protocol for resumable uploads, version 1.0.  Pure."""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

VERSION = "1.0.0"
EXTENSIONS = ("creation", "creation-with-upload", "termination", "checksum", "expiration")
CHECKSUM_ALGORITHMS = ("sha1", "sha256", "sha512")
CONTENT_TYPE = "application/offset+octet-stream"

MAX_METADATA = 4096
"""Characters of ``Upload-Metadata``."""
MAX_OFFSET = 2**63 - 1

CAPABILITIES: Mapping[str, str] = MappingProxyType(
    {
        "Tus-Version": VERSION,
        "Tus-Extension": ",".join(EXTENSIONS),
        "Tus-Checksum-Algorithm": ",".join(CHECKSUM_ALGORITHMS),
    }
)
"""What OPTIONS tells."""

_KEY = re.compile(r"[\x21-\x2b\x2d-\x7e]+")
_NUMBER = re.compile(r"[0-9]{1,19}")


class TusError(Exception):
    """A header field is missing or malformed; the message is for the user."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def parse_number(field: str, value: str | None) -> int:
    """Read ``Upload-Offset`` or ``Upload-Length``.

    Raises:
      TusError: it is missing or no number.
    """
    if value is None:
        raise TusError(field, f"The header {field} is missing: a number of bytes.")
    if _NUMBER.fullmatch(value) is None or int(value) >= MAX_OFFSET:
        raise TusError(field, f"{field} must be a number of bytes.")
    return int(value)


def parse_metadata(value: str | None) -> dict[str, str]:
    """Read ``Upload-Metadata``: keys, and values in base64.  Values that are not UTF-8 are dropped.

    Raises:
      TusError: it is malformed.
    """
    metadata: dict[str, str] = {}
    if value is None or not value.strip():
        return metadata
    if len(value) > MAX_METADATA:
        raise TusError("Upload-Metadata", f"More than {MAX_METADATA} characters of metadata.")
    for pair in value.split(","):
        key, _, encoded = pair.strip().partition(" ")
        if _KEY.fullmatch(key) is None or key in metadata:
            raise TusError("Upload-Metadata", "Keys must be ASCII without spaces, each once.")
        try:
            metadata[key] = b64decode(encoded.strip(), validate=True).decode()
        except Base64Error:
            raise TusError("Upload-Metadata", f"The value of {key!r} is not base64.") from None
        except UnicodeDecodeError:
            continue
    return metadata


@dataclass(frozen=True, slots=True)
class Checksum:
    """``Upload-Checksum``: of the body of one request; `value` in hexadecimal."""

    algorithm: str
    value: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"


_SIZES = {"sha1": 20, "sha256": 32, "sha512": 64}


def parse_checksum(value: str | None) -> Checksum | None:
    """Read ``Upload-Checksum``.

    Raises:
      TusError: it is malformed, or the algorithm is not known.
    """
    if value is None:
        return None
    algorithm, _, encoded = value.strip().partition(" ")
    if algorithm not in _SIZES:
        known = ", ".join(CHECKSUM_ALGORITHMS)
        raise TusError("Upload-Checksum", f"Use one of the algorithms {known}.")
    try:
        digest = b64decode(encoded.strip(), validate=True)
    except Base64Error:
        digest = b""
    if len(digest) != _SIZES[algorithm]:
        raise TusError("Upload-Checksum", f"The value must be a {algorithm} in base64.")
    return Checksum(algorithm, digest.hex())
