"""Reading the query of a request.  Pure.

Nothing is guessed: a parameter that comes twice, or bytes that are not UTF-8, could otherwise name
another file than the one that was meant.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from urllib.parse import parse_qsl

from api.fields import FieldError
from api.times import EPOCH

MAX_PATH = 4096
_MODE = re.compile(r"[0-7]{1,4}")
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


class Query:
    """The parameters of a request; those that are not asked for are ignored.

    Raises:
      FieldError: the query is malformed.
    """

    def __init__(self, raw: bytes) -> None:
        try:
            pairs = parse_qsl(
                raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=64
            )
        except UnicodeDecodeError:
            raise FieldError("query", "The query must be UTF-8, percent-encoded.") from None
        except ValueError:
            raise FieldError("query", "The query has too many parameters.") from None
        self._values: dict[str, str] = {}
        for name, value in pairs:
            if name in self._values:
                raise FieldError(name, f"Give {name!r} once.")
            self._values[name] = value

    def path(self, name: str = "path", default: str | None = None) -> str:
        """Return a path of the session."""
        value = self._values.get(name, default)
        if value is None:
            raise FieldError(name, f"Add {name!r} to the query: the path of a file.")
        return check_path(name, value)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a truth value."""
        value = self._values.get(name)
        if value is None:
            return default
        return parse_flag(name, value)

    def integer(self, name: str, default: int, minimum: int, maximum: int) -> int:
        """Return a number within limits."""
        value = self._values.get(name)
        if value is None:
            return default
        if re.fullmatch(r"[0-9]{1,18}", value) is None or not minimum <= int(value) <= maximum:
            raise FieldError(name, f"{name!r} must be a number in {minimum}..{maximum}.")
        return int(value)

    def mode(self, name: str = "mode") -> int | None:
        """Return permission bits."""
        value = self._values.get(name)
        return None if value is None else parse_mode(name, value)

    def time(self, name: str = "modified") -> int | None:
        """Return a time in nanoseconds since the epoch."""
        value = self._values.get(name)
        return None if value is None else parse_time(name, value)


def check_path(name: str, value: str) -> str:
    """Return `value` if it can be a path.

    Raises:
      FieldError: it cannot.
    """
    if not value or "\0" in value:
        raise FieldError(name, f"{name!r} must be a path: not empty, and without NUL.")
    if len(value) > MAX_PATH:
        raise FieldError(name, f"{name!r} must have at most {MAX_PATH} characters.")
    return value


def parse_flag(name: str, value: str) -> bool:
    """Read ``true`` or ``false``.

    Raises:
      FieldError: it is neither.
    """
    if value not in {"true", "false", "1", "0", ""}:
        raise FieldError(name, f"{name!r} must be true or false.")
    return value in {"true", "1", ""}


def parse_mode(name: str, value: str) -> int:
    """Read permission bits, in octal.

    Raises:
      FieldError: they are not.
    """
    if _MODE.fullmatch(value) is None:
        raise FieldError(name, f"{name!r} must be permission bits in octal, like 0644.")
    return int(value, 8)


def parse_time(name: str, value: str) -> int:
    """Read a time (RFC 3339, up to nanoseconds); return nanoseconds since the epoch.

    Raises:
      FieldError: it is none, or before 1970.
    """
    match = _TIME.fullmatch(value)
    try:
        moment = datetime.fromisoformat(f"{match[1]}{match[3]}".upper()) if match else None
    except ValueError:
        moment = None
    if match is None or moment is None or moment < EPOCH:
        raise FieldError(name, f"{name!r} must be a time from 1970 on, like 2026-01-01T00:00:00Z.")
    seconds = (moment - EPOCH) // timedelta(seconds=1)
    return seconds * 1_000_000_000 + int((match[2] or "").ljust(9, "0"))
