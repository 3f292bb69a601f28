"""The screen of a terminal, made from its output: for those who join late (docs/topics/screens.md).

`Terminal` takes output and knows what it would look like; `take_snapshot` writes down, in escape sequences,
how a fresh terminal gets to look like that; `ScreenKeeper` does both for a stream, when asked, off the event
loop.
"""

from __future__ import annotations

from relay.screen.keeper import ScreenKeeper, ScreenStatistics
from relay.screen.snapshot import FRESH, Snapshot, take_snapshot
from relay.screen.terminal import Terminal

__all__ = ["FRESH", "ScreenKeeper", "ScreenStatistics", "Snapshot", "Terminal", "take_snapshot"]
