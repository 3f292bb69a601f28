"""Which ports and Unix sockets of a sandbox may be connected to.  Pure.

Checked whenever a stream of kind `tcp` or `vnc` is opened or attached to, not once per connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from relay.endpoint import SocketTarget

MAX_ITEMS = 64
MAX_CHARACTERS = 1024
"""All items together, as text: the rules travel in tickets, which travel in URLs."""

_MAX_PORT = 0xFFFF
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class SocketRules:
    """Ranges of ports, both ends included, and absolute paths of Unix sockets.

    The ranges are in order and neither overlap nor touch; `parse` sees to that.
    """

    ranges: tuple[tuple[int, int], ...] = ()
    paths: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, items: Iterable[object]) -> SocketRules:
        """Read a list as it is written: ``[8080, "3000-3999", "/run/vnc.sock"]``.

        Raises:
          ValueError: an item is none of these, or they are too many; the message names it.
        """
        ranges: list[tuple[int, int]] = []
        paths: set[str] = set()
        items = list(items)
        if len(items) > MAX_ITEMS:
            raise ValueError(f"at most {MAX_ITEMS} ports, ranges and paths, not {len(items)}")
        for item in items:
            if isinstance(item, str) and item.startswith("/"):
                if "\0" in item:
                    raise ValueError(f"{item!r} contains a NUL")
                paths.add(item)
            else:
                ranges.append(_range(item))
        rules = cls(_merged(ranges), frozenset(paths))
        if len(str(rules)) > MAX_CHARACTERS:
            raise ValueError(f"more than {MAX_CHARACTERS} characters in all")
        return rules

    def allows(self, target: SocketTarget) -> bool:
        """Tell whether `target` may be connected to; paths are compared letter by letter."""
        if target.port is None:
            return target.path in self.paths
        port = target.port
        return any(first <= port <= last for first, last in self.ranges)

    def covers(self, other: SocketRules) -> bool:
        """Tell whether these rules allow everything that `other` allows."""
        return other.paths <= self.paths and all(
            any(first <= low and high <= last for first, last in self.ranges)
            for low, high in other.ranges
        )

    def items(self) -> list[int | str]:
        """Return what `parse` reads back as these rules."""
        ports = [first if first == last else f"{first}-{last}" for first, last in self.ranges]
        return [*ports, *sorted(self.paths)]

    def __str__(self) -> str:
        return ", ".join(map(str, self.items())) or "none"


def _range(item: object) -> tuple[int, int]:
    wanted = f"{item!r} is neither a port (8080), a range (3000-3999) nor the path of a Unix socket"
    if isinstance(item, bool) or not isinstance(item, int | str):
        raise ValueError(wanted)  # noqa: TRY004 - a wrong value in a configuration, whatever its type
    match = _RANGE.fullmatch(str(item))
    if match is None:
        raise ValueError(wanted)
    first, last = int(match[1]), int(match[2] or match[1])
    if not 1 <= first <= last <= _MAX_PORT:
        raise ValueError(f"{item!r}: ports go from 1 to {_MAX_PORT}, the lower one first")
    return first, last


def _merged(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)
