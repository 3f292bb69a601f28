"""Media types of the files of a session, and how to keep a browser from running them.  Pure."""

from __future__ import annotations

import mimetypes
import re
from urllib.parse import quote

_BUILT_IN = mimetypes.MimeTypes()  # without the files of the system, which differ
_DEFAULT = "application/octet-stream"
_ENCODED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}
_PASSIVE = re.compile(
    r"text/(?:plain|csv|css|markdown|tab-separated-values)|application/json"
    r"|(?:audio|video|font)/.*|image/(?!svg).*"
)
"""What does nothing in a browser; the rest is downloaded."""


def media_type(path: str) -> str:
    """Guess the media type by the name."""
    guessed, encoding = _BUILT_IN.guess_type(f"/{path.rpartition('/')[2]}")
    if encoding is not None:
        return _ENCODED.get(encoding, _DEFAULT)
    if guessed is None:
        return _DEFAULT
    return f"{guessed}; charset=utf-8" if guessed.startswith("text/") else guessed


def disposition(path: str, media_type: str) -> str:
    """Return the ``Content-Disposition`` (RFC 6266): attachment unless it is harmless."""
    kind = "inline" if _PASSIVE.fullmatch(media_type.partition(";")[0]) else "attachment"
    name = path.rstrip("/").rpartition("/")[2]
    plain = re.sub(r'[^\x20-\x7e]|["\\%]', "_", name)
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
