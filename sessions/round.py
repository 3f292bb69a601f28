"""One sandbox in the life of a session; see `sessions.live`."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio


@dataclass(eq=False, slots=True)
class Round:
    """One sandbox of a session, from the wish for it until nothing of it is left."""

    restarts: bool
    """Whether there was one before."""
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ending: trio.Event = field(default_factory=trio.Event)
    """It is to end."""
    started: trio.Event = field(default_factory=trio.Event)
    over: trio.Event = field(default_factory=trio.Event)
    left: trio.Event = field(default_factory=trio.Event)
    """After it was over: the session goes on, in another round or to its end."""
    given_up: bool = False
    """It was to end before it ran."""
    failure: str | None = None

    def end(self, teardown: float, *, unmade: bool) -> None:
        """Begin to end it; `unmade` says that it does not run yet."""
        if self.ending.is_set():
            return
        self.scope.deadline = trio.current_time() + teardown
        self.given_up = unmade
        if unmade:
            self.scope.cancel()
        self.ending.set()
