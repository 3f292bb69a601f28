from __future__ import annotations

import os
import subprocess
import sys

from bench.machine import (
    NOISY_LOAD,
    NOISY_SPREAD,
    Noise,
    NoiseReport,
    cpu_seconds,
    facts,
    memory_bytes,
    tree,
)

GREEDY = "import os, sys; data = bytearray(os.urandom(50_000_000)); sum(data); print(flush=True); sys.stdin.read()"


def test_a_tree_has_children_and_their_costs() -> None:
    with subprocess.Popen(
        ["sh", "-c", f'"{sys.executable}" -c "{GREEDY}"; exit 0'],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        pids = tree(shell.pid)
        assert pids[0] == shell.pid
        assert len(pids) == 2
        assert memory_bytes([shell.pid]) > 50_000_000
        spent = cpu_seconds([shell.pid])
        assert spent > 0.02
        assert cpu_seconds([shell.pid, pids[1]]) < 2 * spent  # nobody counts twice
        assert shell.pid in tree(os.getpid())


def test_who_is_gone_costs_nothing() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert cpu_seconds([process.pid]) == 0
    assert memory_bytes([process.pid]) == 0


def test_noise_is_judged() -> None:
    quiet = NoiseReport(loop_ms=4, spread=0.02, steal=0, others=0.1)
    assert not quiet.complaints
    loud = NoiseReport(loop_ms=4, spread=NOISY_SPREAD + 0.1, steal=0.2, others=NOISY_LOAD + 0.1)
    assert len(loud.complaints) == 3
    assert "hypervisor" in " ".join(loud.complaints)


def test_noise_is_measured() -> None:
    noise = Noise()
    for _ in range(8):
        noise.sample()
    report = noise.judge()
    assert report.loop_ms > 0.1
    assert 0 <= report.steal <= 1
    assert 0 <= report.others <= 1


def test_facts() -> None:
    assert facts()["cpus"] == os.cpu_count()
