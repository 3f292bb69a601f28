"""A few pipes for `splice(2)`, made when they are needed and used again."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass

PIPE_BYTES = 256 * 1024
"""What one pipe holds, in bytes of the kernel's."""

LENT_MAX = 64
"""Pipes in use at the same time; further flows are copied."""

IDLE_MAX = 8
"""Pipes kept for the next who needs one."""


@dataclass(frozen=True, slots=True)
class Pipe:
    """Both ends of a pipe, as descriptors."""

    reading: int
    writing: int


class Pipes:
    """Lends pipes; those that come back empty are lent again."""

    def __init__(self) -> None:
        self._idle: list[Pipe] = []
        self._lent = 0

    def take(self) -> Pipe | None:
        """Return an empty pipe; None if there is none to be had."""
        if self._lent >= LENT_MAX:
            return None
        if self._idle:
            pipe = self._idle.pop()
        else:
            try:
                pipe = Pipe(*os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
            except OSError:  # too many open files: bytes can be moved without
                return None
            with suppress(OSError):  # beyond the user's share of memory for pipes: smaller, then
                fcntl.fcntl(pipe.writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._lent += 1
        return pipe

    def give_back(self, pipe: Pipe, *, is_empty: bool) -> None:
        """Take a pipe back."""
        self._lent -= 1
        if is_empty and len(self._idle) < IDLE_MAX:
            self._idle.append(pipe)
        else:
            os.close(pipe.reading)
            os.close(pipe.writing)

    @property
    def lent(self) -> int:
        """How many are in use."""
        return self._lent

    def close(self) -> None:
        """Close those that nobody uses."""
        while self._idle:
            pipe = self._idle.pop()
            os.close(pipe.reading)
            os.close(pipe.writing)
