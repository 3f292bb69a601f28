"""Preconditions and ranges of requests (RFC 9110 §13 and §14).  Pure.

Validators are given without their quotes; all of ours are strong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from enum import Enum, auto

_ETAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,19})-([0-9]{0,19})[ \t]*")

CONDITIONAL = ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since")
"""The headers of preconditions."""


class Outcome(Enum):
    """What becomes of a request with preconditions."""

    PROCEED = auto()
    NOT_MODIFIED = auto()
    """304: the client has it."""
    FAILED = auto()
    """412: it is not what the client thinks it is."""


@dataclass(frozen=True, slots=True)
class Version:
    """What tells one state of a file from another; `modified` is to the second."""

    etag: str
    modified: datetime


def is_conditional(headers: Mapping[str, str]) -> bool:
    """Tell whether a request has a precondition."""
    return any(name in headers for name in CONDITIONAL)


def evaluate(method: str, headers: Mapping[str, str], current: Version | None) -> Outcome:
    """Evaluate preconditions in the order of RFC 9110 §13.2.2; `current` None: there is nothing.

    What is malformed does not match; a malformed date is ignored.
    """
    reads = method in {"GET", "HEAD"}
    if_match = headers.get("If-Match")
    if if_match is not None:
        if not _any_matches(if_match, current, weak=False):
            return Outcome.FAILED
    else:
        unmodified_since = _date(headers.get("If-Unmodified-Since"))
        if unmodified_since is not None and (
            current is None or current.modified > unmodified_since
        ):
            return Outcome.FAILED
    if_none_match = headers.get("If-None-Match")
    if if_none_match is not None:
        if _any_matches(if_none_match, current, weak=True):
            return Outcome.NOT_MODIFIED if reads else Outcome.FAILED
    elif reads and current is not None:
        modified_since = _date(headers.get("If-Modified-Since"))
        if modified_since is not None and current.modified <= modified_since:
            return Outcome.NOT_MODIFIED
    return Outcome.PROCEED


def _any_matches(field: str, current: Version | None, *, weak: bool) -> bool:
    if current is None:
        return False
    if field.strip() == "*":
        return True
    return any(
        match[2] == current.etag and (weak or not match[1]) for match in _ETAG.finditer(field)
    )


def _date(field: str | None) -> datetime | None:
    if field is None:
        return None
    try:
        date = parsedate_to_datetime(field)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


def http_date(moment: datetime) -> str:
    """Return a date as in ``Last-Modified`` (RFC 9110 §5.6.7)."""
    return format_datetime(moment.astimezone(UTC), usegmt=True)


class Unsatisfiable(Exception):
    """416: none of the bytes asked for exist."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes `start` .. `stop` (exclusive) of a file."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """How many bytes."""
        return self.stop - self.start

    def header(self, size: int) -> str:
        """Return the ``Content-Range`` for a file of `size` bytes (§14.4)."""
        return f"bytes {self.start}-{self.stop - 1}/{size}"


def requested_range(field: str | None, size: int) -> ByteRange | None:
    """Return the range that a ``Range`` header asks for; None: the whole (§14.2).

    Several ranges, other units and what is malformed get the whole.

    Raises:
      Unsatisfiable: the range is beyond the end.
    """
    match = _RANGE.fullmatch(field) if field is not None else None
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        wanted = min(int(match[2]), size)
        if not wanted:
            raise Unsatisfiable
        return ByteRange(size - wanted, size)
    first = int(match[1])
    last = int(match[2]) if match[2] else size - 1
    if match[2] and last < first:
        return None  # malformed
    if first >= size:
        raise Unsatisfiable
    return ByteRange(first, min(last + 1, size))


def range_applies(if_range: str | None, current: Version, now: datetime) -> bool:
    """Tell whether ``If-Range`` lets the range stand (§13.1.5).

    A date counts only when the file has been left alone for a while since: otherwise it may have
    changed twice within that second.
    """
    if if_range is None:
        return True
    match = _ETAG.fullmatch(if_range.strip())
    if match is not None:
        return not match[1] and match[2] == current.etag
    date = _date(if_range)
    return date == current.modified and now - current.modified > timedelta(seconds=2)
