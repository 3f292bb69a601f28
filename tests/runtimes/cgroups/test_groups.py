"""Groups, in trees that are plain directories, and one that is real."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from runtimes.base import ResourceLimits
from runtimes.cgroups import CannotEnforce, ControlGroup, ControlGroups, Hierarchy, find_groups
from runtimes.cgroups.groups import Power

LIMITS = ResourceLimits(memory_bytes=100_000_000, processes=20, cpus=1.5)


class Tree:
    """Directories in which a group gets its files as soon as it is made, as the kernel does."""

    def __init__(self, version: int, root: Path, files: dict[Power, dict[str, str]]) -> None:
        self.parents = {}
        for power in files:
            parent = root / (power.value if version == 1 else "one")
            parent.mkdir(parents=True, exist_ok=True)
            self.parents[power] = parent
        self.hierarchy = Hierarchy(version, self.parents, {})
        for power, names in files.items():
            group = self.parents[power] / "p-s"
            group.mkdir(exist_ok=True)
            for name, content in names.items():
                (group / name).write_text(content)

    def read(self, power: Power, name: str) -> str:
        return (self.parents[power] / "p-s" / name).read_text()


V1 = {
    Power.MEMORY: {"memory.limit_in_bytes": "", "memory.memsw.limit_in_bytes": ""},
    Power.PROCESSES: {"pids.max": ""},
    Power.CPUS: {"cpu.cfs_period_us": "", "cpu.cfs_quota_us": ""},
    Power.FREEZE: {"freezer.state": ""},
}
V2 = {
    Power.MEMORY: {"memory.max": "", "memory.swap.max": ""},
    Power.PROCESSES: {"pids.max": ""},
    Power.CPUS: {"cpu.max": ""},
    Power.FREEZE: {"cgroup.freeze": "", "cgroup.kill": ""},
}


def test_version_1(tmp_path: Path) -> None:
    tree = Tree(1, tmp_path, V1)
    group = ControlGroups(tree.hierarchy, "p-").create("s", LIMITS)
    assert tree.read(Power.MEMORY, "memory.limit_in_bytes") == "100000000"
    assert tree.read(Power.MEMORY, "memory.memsw.limit_in_bytes") == "100000000"
    assert tree.read(Power.PROCESSES, "pids.max") == "21"
    assert tree.read(Power.CPUS, "cpu.cfs_period_us") == "100000"
    assert tree.read(Power.CPUS, "cpu.cfs_quota_us") == "150000"
    group.add(4242)
    for power in V1:
        assert tree.read(power, "cgroup.procs") == "4242"
    assert group.can_freeze
    group.freeze()
    assert tree.read(Power.FREEZE, "freezer.state") == "FROZEN"
    group.thaw()
    assert tree.read(Power.FREEZE, "freezer.state") == "THAWED"


def test_version_2(tmp_path: Path) -> None:
    tree = Tree(2, tmp_path, V2)
    group = ControlGroups(tree.hierarchy, "p-").create("s", LIMITS)
    assert tree.read(Power.MEMORY, "memory.max") == "100000000"
    assert tree.read(Power.MEMORY, "memory.swap.max") == "0"
    assert tree.read(Power.PROCESSES, "pids.max") == "21"
    assert tree.read(Power.CPUS, "cpu.max") == "150000 100000"
    group.add(4242)
    assert tree.read(Power.CPUS, "cgroup.procs") == "4242"
    group.freeze()
    assert tree.read(Power.FREEZE, "cgroup.freeze") == "1"
    group.thaw()
    assert tree.read(Power.FREEZE, "cgroup.freeze") == "0"


def test_a_kernel_that_does_not_count_swap(tmp_path: Path) -> None:
    tree = Tree(1, tmp_path, {Power.MEMORY: {"memory.limit_in_bytes": ""}})
    ControlGroups(tree.hierarchy, "p-").create("s", ResourceLimits(memory_bytes=1 << 26))
    assert not (tree.parents[Power.MEMORY] / "p-s" / "memory.memsw.limit_in_bytes").exists()


def test_what_cannot_be_enforced_is_an_error(tmp_path: Path) -> None:
    hierarchy = Hierarchy(1, {Power.FREEZE: tmp_path}, {Power.MEMORY: "it is not mounted; do so"})
    groups = ControlGroups(hierarchy, "p-")
    with pytest.raises(CannotEnforce, match=r"limit of memory .* it is not mounted; do so"):
        groups.create("s", ResourceLimits(memory_bytes=1 << 26))
    assert list(tmp_path.iterdir()) == []
    assert groups.powers == {Power.FREEZE}


def test_a_group_that_cannot_be_set_up_is_removed(tmp_path: Path) -> None:
    """The kernel refuses a value: as if the file were a directory."""
    parent = tmp_path / "pids"
    (parent / "p-s" / "pids.max").mkdir(parents=True)
    hierarchy = Hierarchy(1, {Power.PROCESSES: parent}, {})
    removed: list[ControlGroup] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ControlGroup, "remove", lambda self: removed.append(self))
        with pytest.raises(CannotEnforce, match="no control group can be set up"):
            ControlGroups(hierarchy, "p-").create("s", ResourceLimits(processes=5))
    assert len(removed) == 1


def test_without_any_hierarchy_there_is_nothing_to_do() -> None:
    group = ControlGroups(Hierarchy(2, {}, {}), "p-").create("s", ResourceLimits())
    group.add(os.getpid())
    assert not group.can_freeze
    group.thaw()
    assert group.remove()


def test_for_real() -> None:
    hierarchy = find_groups()
    if not {Power.PROCESSES, Power.FREEZE} <= set(hierarchy.parents):
        pytest.skip("; ".join(hierarchy.missing.values()))
    groups = ControlGroups(hierarchy, f"trunkline-test-{os.getpid()}-")
    group = groups.create("s", ResourceLimits(processes=5))
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            group.add(process.pid)
            group.freeze()
            assert groups.remove_leftovers() >= 1  # what is frozen is thawed, killed and waited for
            assert process.wait(10) == -9
        finally:
            process.kill()
    assert group.remove()
    assert groups.remove_leftovers() == 0
