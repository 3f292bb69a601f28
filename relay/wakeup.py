"""A flag that one task waits for and anybody sets."""

from __future__ import annotations

import trio


class Wakeup:
    """Remembers that it was set until the next `wait`, so no signal is lost between two waits."""

    def __init__(self) -> None:
        self._lot = trio.lowlevel.ParkingLot()
        self._is_set = False

    def set(self) -> None:
        """Let the waiting task, or the next one that waits, go on."""
        self._is_set = True
        self._lot.unpark_all()

    async def wait(self) -> None:
        """Wait until it is set, and clear it.

        Cancellation: safe; the flag stays as it is.
        """
        if self._is_set:
            await trio.lowlevel.checkpoint()
        else:
            await self._lot.park()
        self._is_set = False
