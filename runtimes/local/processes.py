"""Finding and ending processes that are not ours to wait for.

A process that is told to end may have started others, which only ``/proc`` knows.  They are found
by their session id (everything a terminal or a command started, unless it called setsid), or by a
variable in the environment they were started with (which setsid and nohup do not take away).
Out of reach stay: processes of another user (sudo), and those that both left the session and wiped
or locked away their environment.  A runtime that isolates has no such gap.

Signals go through pidfds, and a process is looked at again after its pidfd was opened, so a pid
that was reused in between is never hit.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection, Sequence
from functools import partial

import structlog
import trio

_log = structlog.get_logger()

Match = Callable[[int], bool]

# How many processes are held by a pidfd at the same time; further ones wait for the next round.
ROUND = 256

# A process that survives SIGKILL for this long (seconds) is looked for once more.
_KILL_ROUND_SECONDS = 0.5

# Pause before descriptors are tried for again.
_RETRY_SECONDS = 0.05

_GONE_OR_HIDDEN = (FileNotFoundError, ProcessLookupError, PermissionError)

_NUM_THREADS = 17  # proc(5): index of num_threads, counted from the state


def in_session(session: int) -> Match:
    """Match living processes whose session id (setsid(2)) is `session`."""
    wanted = str(session).encode()

    def match(pid: int) -> bool:
        stat = _read(pid, "stat")
        # The name is in parentheses and may hold anything, parentheses and blanks included.
        fields = stat[stat.rfind(b")") + 2 :].split()
        if len(fields) <= _NUM_THREADS or fields[3] != wanted:
            return False
        # A leader thread may be gone while other threads of the process go on.
        return fields[0] not in b"ZX" or int(fields[_NUM_THREADS]) > 1

    return match


def started_with(name: str, value: str) -> Match:
    """Match living processes whose initial environment holds ``name=value``."""
    return started_with_any(name, (value,))


def started_with_any(name: str, values: Collection[str]) -> Match:
    """Match living processes whose initial environment holds ``name=`` with one of `values`."""
    wanted = frozenset(os.fsencode(value) for value in values)
    start = os.fsencode(f"\0{name}=")

    def match(pid: int) -> bool:
        _, found, rest = (b"\0" + _read(pid, "environ")).partition(start)
        return bool(found) and rest.partition(b"\0")[0] in wanted

    return match


async def end_politely(
    match: Match, polite: signal.Signals, seconds: float, limiter: trio.CapacityLimiter
) -> None:
    """Send `polite` to every process that matches, and wait up to `seconds` for their ends.

    Stopped ones are continued, since they could not react otherwise.  `limiter` bounds the threads
    that read ``/proc``.  Without descriptors for that it gives up.  Cancellation: safe.
    """
    strike = partial(_strike, match, (polite, signal.SIGCONT))
    try:
        found = await trio.to_thread.run_sync(strike, limiter=limiter)
    except OSError as error:
        _log.warning("processes_not_asked_to_end", error=error.strerror)
        return
    await _wait_for_ends(found, seconds)


async def end_by_force(match: Match, limiter: trio.CapacityLimiter) -> None:
    """Kill every process that matches, and wait until none is left.

    Goes on for as long as there is one, or descriptors to look for them are missing: the caller
    sets the deadline.  Cancellation: safe.
    """
    strike = partial(_strike, match, (signal.SIGKILL,))
    while True:
        try:
            found = await trio.to_thread.run_sync(strike, limiter=limiter)
        except OSError as error:
            _log.warning("processes_not_found", error=error.strerror)
            await trio.sleep(_RETRY_SECONDS)
            continue
        if not found:
            return
        await _wait_for_ends(found, _KILL_ROUND_SECONDS)


def _strike(match: Match, signals: Sequence[signal.Signals]) -> list[int]:
    """Send `signals` to what matches; return the pidfds of what they were sent to."""
    own = os.getpid()
    struck: list[int] = []
    try:
        with os.scandir("/proc") as entries:
            for entry in entries:
                if not entry.name.isdecimal() or (pid := int(entry.name)) == own or not match(pid):
                    continue
                try:
                    pidfd = os.pidfd_open(pid)
                except ProcessLookupError:
                    continue
                struck.append(pidfd)
                # Looked at again: from here on the pidfd can mean no other process.
                if not match(pid) or not _send(pidfd, pid, signals):
                    os.close(struck.pop())
                if len(struck) == ROUND:
                    break
    except BaseException:
        for pidfd in struck:
            os.close(pidfd)
        raise
    return struck


def _send(pidfd: int, pid: int, signals: Sequence[signal.Signals]) -> bool:
    """Send `signals`; tell whether there was a process to take them."""
    try:
        for number in signals:
            signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        _log.warning("process_of_another_user_left_alone", pid=pid)
        return False
    return True


async def _wait_for_ends(pidfds: list[int], seconds: float) -> None:
    try:
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for pidfd in pidfds:
                    nursery.start_soon(trio.lowlevel.wait_readable, pidfd)
    finally:
        for pidfd in pidfds:
            os.close(pidfd)


def _read(pid: int, name: str) -> bytes:
    """Return ``/proc/<pid>/<name>``; empty when the process is gone or hidden from us."""
    try:
        fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except _GONE_OR_HIDDEN:
        return b""
    try:
        pieces = []
        while piece := os.read(fd, 65536):
            pieces.append(piece)
        return b"".join(pieces)
    except _GONE_OR_HIDDEN:
        return b""
    finally:
        os.close(fd)
