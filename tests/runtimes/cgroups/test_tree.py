"""Finding hierarchies, from what the kernel would tell."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtimes.cgroups import find_groups
from runtimes.cgroups.groups import Power


class Kernel:
    """``/proc/self`` and mounted trees, made of files."""

    def __init__(self, directory: Path) -> None:
        self.proc = directory / "proc"
        self.proc.mkdir()
        self.mounts = directory / "cgroup"
        self.mounts.mkdir()

    def tell(self, groups: list[str], mounts: list[str]) -> None:
        (self.proc / "cgroup").write_text("".join(f"{line}\n" for line in groups))
        lines = [f"31 23 0:28 {line}\n" for line in mounts]
        (self.proc / "mountinfo").write_text("".join(lines))

    def version_1(self, controller: str, *, own: str = "/", root: str = "/") -> str:
        (self.mounts / controller / os.path.relpath(own, root)).mkdir(parents=True, exist_ok=True)
        return f"{root} {self.mounts}/{controller} rw - cgroup cgroup rw,{controller}"

    def version_2(
        self, controllers: str, enabled: str, procs: str, own: str = "/a.service"
    ) -> Path:
        self.tell([f"0::{own}"], [f"/ {self.mounts}/all rw - cgroup2 cgroup2 rw"])
        group = self.mounts / "all" / own[1:]
        group.mkdir(parents=True)
        (group / "cgroup.controllers").write_text(controllers)
        (group / "cgroup.subtree_control").write_text(enabled)
        (group / "cgroup.procs").write_text(procs)
        return group


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def test_hybrid(kernel: Kernel) -> None:
    kernel.tell(
        ["8:pids:/", "6:freezer:/", "4:memory:/outer/inner", "1:cpu,cpuacct:/", "0::/"],
        [
            kernel.version_1("pids"),
            kernel.version_1("freezer"),
            kernel.version_1("memory", own="/outer/inner", root="/outer"),
            f"/ {kernel.mounts}/unified rw - cgroup2 cgroup2 rw",
        ],
    )
    found = find_groups(kernel.proc)
    assert found.version == 1
    assert found.parents == {
        Power.PROCESSES: kernel.mounts / "pids",
        Power.FREEZE: kernel.mounts / "freezer",
        Power.MEMORY: kernel.mounts / "memory" / "inner",
    }
    assert "'cpu' is not mounted; run the server as root" in found.missing[Power.CPUS]


@pytest.mark.skipif(not os.getuid(), reason="root may write everywhere")
def test_what_may_not_be_written(kernel: Kernel) -> None:
    kernel.tell(["8:pids:/"], [kernel.version_1("pids")])
    (kernel.mounts / "pids").chmod(0o500)
    assert "may not be written" in find_groups(kernel.proc).missing[Power.PROCESSES]


def test_version_2_with_controllers(kernel: Kernel) -> None:
    group = kernel.version_2("cpu memory pids", "cpu memory pids", "")
    found = find_groups(kernel.proc)
    assert found.version == 2
    assert found.parents == dict.fromkeys(Power, group)


def test_version_2_alone_in_its_group(kernel: Kernel) -> None:
    """As a systemd service with Delegate=yes: it moves out of the way."""
    group = kernel.version_2("memory", "", str(os.getpid()))
    found = find_groups(kernel.proc)
    assert (group / "trunkline-server" / "cgroup.procs").read_text() == str(os.getpid())
    assert (group / "cgroup.subtree_control").read_text() == "+memory"
    assert set(found.parents) == {Power.MEMORY, Power.FREEZE}
    assert "'pids' is not given to" in found.missing[Power.PROCESSES]


def test_version_2_among_others(kernel: Kernel) -> None:
    """The kernel would refuse, and nobody else's processes are moved."""
    group = kernel.version_2("memory", "", f"1\n{os.getpid()}\n")
    (group / "cgroup.subtree_control").unlink()
    (group / "cgroup.subtree_control").mkdir()
    found = find_groups(kernel.proc)
    assert not (group / "trunkline-server").exists()
    assert set(found.parents) == {Power.FREEZE}
    assert "Delegate=yes" in found.missing[Power.MEMORY]


def test_nothing_is_mounted(kernel: Kernel) -> None:
    found = find_groups(kernel.proc)
    assert found.parents == {}
    assert set(found.missing) == set(Power)
