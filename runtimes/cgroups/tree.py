"""Finding where this process may make control groups.

Version 1 (also beside version 2, in the "hybrid" layout): beneath this process's own group of each
controller.  Version 2: beneath its own group, too, but a group there cannot have both processes and
controllers for those beneath it.  So where this process is alone in its group (a systemd service
with ``Delegate=yes``), it moves into a group of its own beneath that.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtimes.cgroups.groups import Hierarchy, Power

_CONTROLLERS: Mapping[Power, str] = {
    Power.MEMORY: "memory",
    Power.PROCESSES: "pids",
    Power.CPUS: "cpu",
}

_OWN_GROUP = "trunkline-server"

_ADVICE = (
    "run the server as root, or as a systemd service with Delegate=yes,"
    " or leave the limit out of the profile"
)


@dataclass(frozen=True, slots=True)
class _Mount:
    """A mounted hierarchy: which directory of it is seen where; `controllers` None: version 2."""

    root: str
    point: Path
    controllers: frozenset[str] | None


def find_groups(proc: Path = Path("/proc/self")) -> Hierarchy:
    """Find out where groups can be made, and what they can do.

    `proc` is where the kernel tells about this process.  Blocks shortly; may move this process.
    """
    mounts = _mounts(proc)
    own = _own_groups(proc)
    if any(mount.controllers and "pids" in mount.controllers for mount in mounts):
        return _version_1(mounts, own)
    unified = next((mount for mount in mounts if mount.controllers is None), None)
    if unified is None or "" not in own:
        reason = f"no control groups are mounted; {_ADVICE}"
        return Hierarchy(2, {}, dict.fromkeys(Power, reason))
    return _version_2(_directory(unified, own[""]))


def _version_1(mounts: list[_Mount], own: Mapping[str, str]) -> Hierarchy:
    parents: dict[Power, Path] = {}
    missing: dict[Power, str] = {}
    for power, controller in {**_CONTROLLERS, Power.FREEZE: "freezer"}.items():
        mount = next((m for m in mounts if m.controllers and controller in m.controllers), None)
        if mount is None or controller not in own:
            missing[power] = f"the controller {controller!r} is not mounted; {_ADVICE}"
            continue
        directory = _directory(mount, own[controller])
        if os.access(directory, os.W_OK):
            parents[power] = directory
        else:
            missing[power] = f"{directory} may not be written; {_ADVICE}"
    return Hierarchy(1, parents, missing)


def _version_2(directory: Path) -> Hierarchy:
    if not os.access(directory, os.W_OK):
        reason = f"{directory} may not be written; {_ADVICE}"
        return Hierarchy(2, {}, dict.fromkeys(Power, reason))
    parents: dict[Power, Path] = {}
    missing: dict[Power, str] = {}
    if (directory / "cgroup.procs").exists():
        parents[Power.FREEZE] = directory
    for power, controller in _CONTROLLERS.items():
        problem = _enable(directory, controller)
        if problem is None:
            parents[power] = directory
        else:
            missing[power] = f"{problem}; {_ADVICE}"
    return Hierarchy(2, parents, missing)


def _enable(directory: Path, controller: str) -> str | None:
    """Give the groups beneath `directory` a controller; return what keeps us from it."""
    subtree = directory / "cgroup.subtree_control"
    try:
        if controller in subtree.read_text().split():
            return None
        if controller not in (directory / "cgroup.controllers").read_text().split():
            return f"the controller {controller!r} is not given to {directory}"
        _leave(directory)
        subtree.write_text(f"+{controller}")
    except OSError as error:
        return f"the controller {controller!r} cannot be used: {error}"
    return None


def _leave(directory: Path) -> None:
    """Move this process into a group of its own, if it is the only one in its group."""
    own = str(os.getpid())
    if (directory / "cgroup.procs").read_text().split() == [own]:
        leaf = directory / _OWN_GROUP
        leaf.mkdir(exist_ok=True)
        (leaf / "cgroup.procs").write_text(own)


def _directory(mount: _Mount, group: str) -> Path:
    """Return where a group of a hierarchy is seen."""
    relative = os.path.relpath(group, mount.root)
    return mount.point if relative.startswith("..") else mount.point / relative


def _own_groups(proc: Path) -> dict[str, str]:
    """Return the groups of this process: by controller, and ``""`` for version 2."""
    groups: dict[str, str] = {}
    for line in _lines(proc / "cgroup"):
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = path
    return groups


def _mounts(proc: Path) -> list[_Mount]:
    """Return what proc(5), mountinfo, says about control groups."""
    mounts = []
    for line in _lines(proc / "mountinfo"):
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if kind[0] == "cgroup2":
            mounts.append(_Mount(fields[3], Path(fields[4]), None))
        elif kind[0] == "cgroup":
            mounts.append(_Mount(fields[3], Path(fields[4]), frozenset(kind[2].split(","))))
    return mounts


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return []
