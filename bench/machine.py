"""What /proc tells: CPU seconds and memory of a process tree, the machine, and how noisy it is."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.ratios import median, spread

_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")

NOISY_SPREAD = 0.25
"""Quartile distance of the calibration loop, relative to its median."""
NOISY_STEAL = 0.05
"""Share of the run that the hypervisor took away."""
NOISY_LOAD = 0.30
"""Share of the machine that others used."""


def _stat(pid: int) -> list[str] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def tree(pid: int) -> list[int]:
    """Return `pid` and all its descendants that are there now."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))) is not None:
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def cpu_seconds(pids: list[int]) -> float:
    """Return the CPU time of these trees, descendants that ended and were waited for included.

    To the kernel's tick, 10 ms usually.
    """
    ticks = 0
    for each in {member for pid in pids for member in tree(pid)}:
        if (fields := _stat(each)) is not None:
            ticks += sum(map(int, fields[11:15]))
    return ticks / _TICKS


def memory_bytes(pids: list[int]) -> int:
    """Return the memory of these trees: pages that several processes share count once (PSS)."""
    return sum(_memory(each) for pid in pids for each in tree(pid))


def _memory(pid: int) -> int:
    for name, key in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        try:
            text = (_PROC / str(pid) / name).read_text()
        except OSError:
            continue
        for line in text.splitlines():
            if line.startswith(key):
                return int(line.split()[1]) * 1024
    return 0


def facts() -> dict[str, Any]:
    """Return what a reader of the figures needs to know of this machine."""
    model = ""
    for line in (_PROC / "cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {
        "system": platform.system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "processor": model,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def _cpu_times() -> tuple[int, int, int]:
    """Return ticks of all CPUs: busy, stolen, all."""
    first = (_PROC / "stat").read_text().split("\n", 1)[0]
    ticks = [int(field) for field in first.split()[1:9]]
    idle, steal = ticks[3] + ticks[4], ticks[7]
    return sum(ticks) - idle - steal, steal, sum(ticks)


def calibrate() -> float:
    """Return the milliseconds of a fixed piece of work (about 4 ms)."""
    began = time.perf_counter()
    total = 0
    for number in range(40_000):
        total += number * number % 7
    return (time.perf_counter() - began) * 1000


@dataclass(slots=True)
class Noise:
    """How steady the machine was: the same work at many moments, and who else used the CPUs."""

    loops: list[float] = field(default_factory=list)
    _at_start: tuple[int, int, int] = field(default_factory=_cpu_times)
    _own_at_start: float = 0.0
    _pid: int = field(default_factory=os.getpid)

    def __post_init__(self) -> None:
        self._own_at_start = cpu_seconds([self._pid])

    def sample(self) -> None:
        """Run the calibration loop once."""
        self.loops.append(calibrate())

    def judge(self) -> NoiseReport:
        """Return the judgement over the time since this was made."""
        busy, steal, total = (
            now - then for now, then in zip(_cpu_times(), self._at_start, strict=True)
        )
        own = (cpu_seconds([self._pid]) - self._own_at_start) * _TICKS
        return NoiseReport(
            loop_ms=median(self.loops) or 0.0,
            spread=spread(self.loops),
            steal=steal / total if total else 0.0,
            others=max(0.0, busy - own) / total if total else 0.0,
        )


@dataclass(frozen=True, slots=True)
class NoiseReport:
    """Shares are of all CPUs over the run, `spread` is relative to the median."""

    loop_ms: float
    spread: float
    steal: float
    others: float

    @property
    def complaints(self) -> list[str]:
        """Why the figures should not be trusted; empty if they may."""
        found = []
        if self.spread > NOISY_SPREAD:
            found.append(f"the same work took {self.spread:.0%} more or less from time to time")
        if self.steal > NOISY_STEAL:
            found.append(f"the hypervisor took {self.steal:.0%} of the time")
        if self.others > NOISY_LOAD:
            found.append(f"other programs used {self.others:.0%} of the CPUs")
        return found
