"""What the operating system knows of processes and descriptors, for tests that count them."""

from __future__ import annotations

import os
from pathlib import Path

import trio


def process_state(pid: int) -> str | None:
    """Return the state letter of a process (proc(5)), ``Z`` for a zombie; None when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_running(pid: int) -> bool:
    """Tell whether the process exists and is no zombie."""
    return process_state(pid) not in (None, "Z", "X")


def running_pids() -> list[int]:
    """Return the pid of every process there is."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def children() -> set[int]:
    """Return the children of this process, zombies included."""
    return {
        int(pid)
        for task in Path("/proc/self/task").iterdir()
        for pid in (task / "children").read_text().split()
    }


def descriptors() -> dict[int, str]:
    """Return the open descriptors of this process and what they refer to."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[int(entry.name)] = os.readlink(entry)  # noqa: PTH115 - a name such as pipe:[1]
        except FileNotFoundError:  # the one that lists the directory
            continue
    return found


async def wait_until_gone(pid: int, seconds: float = 10) -> None:
    """Wait until the process has ended; for processes that are not ours to wait for."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with trio.fail_after(seconds):
            await trio.lowlevel.wait_readable(pidfd)
    finally:
        os.close(pidfd)
