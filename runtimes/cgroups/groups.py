"""Groups in a hierarchy: made with limits, filled, frozen, emptied, removed.

Version 1 has a tree of directories per controller, version 2 one for all.  Both are driven by
writing to files (cgroups(7)), so a hierarchy is a directory per thing that can be done there; which
directory that is, `runtimes.cgroups.tree` finds out.  Everything here blocks, shortly.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from runtimes.base import ResourceLimits

CPU_PERIOD = 100_000
"""Microseconds over which the share of a processor is measured out."""

_ROUND_SECONDS = 0.01
_GIVE_UP_SECONDS = 5.0


class Power(StrEnum):
    """What a hierarchy can do."""

    MEMORY = "memory"
    PROCESSES = "processes"
    CPUS = "cpus"
    FREEZE = "freeze"


class CannotEnforce(Exception):
    """A limit cannot be enforced here, or a group cannot be made; says why and what to do."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where groups are made.

    `parents` says for each power the directory beneath which a group that has it is made; `missing`
    says for each other one why not.  `version` is 1 or 2.
    """

    version: int
    parents: Mapping[Power, Path]
    missing: Mapping[Power, str]


class ControlGroups:
    """Makes the groups of one server; their names begin with `prefix`, which is its alone."""

    def __init__(self, hierarchy: Hierarchy, prefix: str) -> None:
        self._hierarchy = hierarchy
        self._prefix = prefix

    @property
    def powers(self) -> frozenset[Power]:
        """What can be done here."""
        return frozenset(self._hierarchy.parents)

    def create(self, name: str, limits: ResourceLimits) -> ControlGroup:
        """Make a group.

        Raises:
          CannotEnforce: there is a limit that cannot be enforced; nothing is left behind.
        """
        settings = _settings(self._hierarchy.version, limits)
        for power in settings:
            if power not in self._hierarchy.parents:
                reason = self._hierarchy.missing.get(power, "there are no control groups")
                raise CannotEnforce(f"a limit of {power} cannot be enforced here: {reason}")
        directories = {
            power: parent / f"{self._prefix}{name}"
            for power, parent in self._hierarchy.parents.items()
            # Without a limit, no group but the one that freezes.
            if power in settings or power is Power.FREEZE
        }
        group = ControlGroup(self._hierarchy.version, directories)
        try:
            for directory in dict.fromkeys(directories.values()):
                directory.mkdir(exist_ok=True)
            for power, files in settings.items():
                for file, value in files.items():
                    path = directories[power] / file
                    if file in _OPTIONAL and not path.exists():
                        continue
                    path.write_text(value)
        except OSError as error:
            group.remove()
            raise CannotEnforce(f"no control group can be set up: {error}") from error
        return group

    def remove_leftovers(self) -> int:
        """Kill what is in groups of an earlier life of this server, and remove them."""
        count = 0
        for parent in dict.fromkeys(self._hierarchy.parents.values()):
            with contextlib.suppress(OSError):
                for directory in parent.glob(f"{self._prefix}*"):
                    ControlGroup(self._hierarchy.version, {Power.FREEZE: directory}).remove()
                    count += 1
        return count


_OPTIONAL = frozenset({"memory.memsw.limit_in_bytes", "memory.swap.max"})
"""Files about swap, which a kernel may not account for."""


def _settings(version: int, limits: ResourceLimits) -> dict[Power, dict[str, str]]:
    """Return what is to be written into which files."""
    settings: dict[Power, dict[str, str]] = {}
    if (memory := limits.memory_bytes) is not None:
        settings[Power.MEMORY] = (
            {
                "memory.limit_in_bytes": str(memory),
                "memory.memsw.limit_in_bytes": str(memory),
            }
            if version == 1
            else {"memory.max": str(memory), "memory.swap.max": "0"}
        )
    if limits.processes is not None:
        settings[Power.PROCESSES] = {"pids.max": str(limits.processes + 1)}  # and the init
    if limits.cpus is not None:
        quota = max(1000, round(limits.cpus * CPU_PERIOD))  # the kernel takes no less
        settings[Power.CPUS] = (
            {"cpu.cfs_period_us": str(CPU_PERIOD), "cpu.cfs_quota_us": str(quota)}
            if version == 1
            else {"cpu.max": f"{quota} {CPU_PERIOD}"}
        )
    return settings


class ControlGroup:
    """The group of one sandbox; made by `ControlGroups.create`."""

    def __init__(self, version: int, directories: Mapping[Power, Path]) -> None:
        self._version = version
        self._directories = directories

    @property
    def can_freeze(self) -> bool:
        """Whether `freeze` works."""
        return Power.FREEZE in self._directories

    def add(self, pid: int) -> None:
        """Put a process in, and so everything that it starts from now on.

        Raises:
          CannotEnforce: the system refused.
        """
        try:
            for directory in dict.fromkeys(self._directories.values()):
                (directory / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            raise CannotEnforce(f"no process can be put into a control group: {error}") from error

    def freeze(self) -> None:
        """Stop everything in the group; returns when it has stopped, or after some seconds.

        Raises:
          OSError: the system refused.
          TimeoutError: something in it does not stop.
        """
        directory = self._directories[Power.FREEZE]
        if self._version == 2:
            (directory / "cgroup.freeze").write_text("1")
            return
        state = directory / "freezer.state"
        deadline = time.monotonic() + _GIVE_UP_SECONDS
        while True:
            state.write_text("FROZEN")  # written again, it finds processes that were forked since
            if state.read_text().strip() == "FROZEN":
                return
            if time.monotonic() > deadline:
                state.write_text("THAWED")
                raise TimeoutError(errno.ETIMEDOUT, "some processes do not freeze")
            time.sleep(_ROUND_SECONDS)

    def thaw(self) -> None:
        """Let everything go on.  Idempotent.

        Raises:
          OSError: the system refused.
        """
        directory = self._directories.get(Power.FREEZE)
        if directory is None:
            return
        file = "cgroup.freeze" if self._version == 2 else "freezer.state"
        (directory / file).write_text("0" if self._version == 2 else "THAWED")

    def remove(self) -> bool:
        """Kill what is left inside and remove the group; tell whether that worked.  Idempotent."""
        with contextlib.suppress(OSError):
            self.thaw()  # else nothing inside could die
        left = list(dict.fromkeys(self._directories.values()))
        deadline = time.monotonic() + _GIVE_UP_SECONDS
        while True:
            left = [directory for directory in left if not _remove(directory)]
            if not left or time.monotonic() > deadline:
                return not left
            for directory in left:
                _kill(directory)
            time.sleep(_ROUND_SECONDS)


def _remove(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _kill(directory: Path) -> None:
    try:
        (directory / "cgroup.kill").write_text("1")  # version 2, since Linux 5.14
    except OSError:
        with contextlib.suppress(OSError):
            for pid in (directory / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(int(pid), signal.SIGKILL)
