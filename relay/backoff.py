"""How long to wait before the next attempt: exponential, with jitter.

Jitter keeps the clients of a server that went away from coming back all at once.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """Delays in seconds: from `first`, doubling, up to `maximum`, each spread down by half."""

    first: float = 0.01
    maximum: float = 10.0
    attempts: int = 0

    def next_delay(self, chance: float) -> float:
        """Return the next delay; `chance` is a random number in 0..1."""
        ceiling = min(self.maximum, self.first * 2.0 ** min(self.attempts, 30))
        self.attempts += 1
        return ceiling * (0.5 + 0.5 * chance)

    def reset(self) -> None:
        """An attempt succeeded: begin anew."""
        self.attempts = 0
