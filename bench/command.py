"""What `trunkline bench` does: choose, measure, print.  Its options are in `trunkline.cli.bench`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import click
import trio
from rich.console import Console

from bench import report
from bench.flows import FLOWS
from bench.independence import measure as measure_independence
from bench.machine import facts
from bench.measure import DIRECT, Flow, run
from bench.ratios import median
from bench.rivals import SUBJECTS

QUICK_FLOWS = (
    "down-1K-1",
    "down-64K-1",
    "up-1K-1",
    "up-64K-1",
    "echo-p50-1",
    "echo-p99-1",
    "setups",
)
QUICK_SUBJECTS = ("none", "socket-stream", "trunkline", "trunkline-spin")


def choose_flows(wanted: tuple[str, ...], *, quick: bool) -> list[Flow]:
    """Return the flows that begin like one of `wanted`, or all, or the quick ones.

    Raises:
      click.BadParameter: one of `wanted` matches none.
    """
    if not wanted:
        return [flow for flow in FLOWS if not quick or flow.name in QUICK_FLOWS]
    for each in wanted:
        if not any(flow.name.startswith(each) for flow in FLOWS):
            raise click.BadParameter(
                f"no flow begins with {each!r}; --list shows them", param_hint="--flow"
            )
    return [flow for flow in FLOWS if flow.name.startswith(wanted)]


def choose_subjects(wanted: tuple[str, ...], *, quick: bool) -> list[str]:
    """Return the names of what is measured: Trunkline, references, and the rivals asked for.

    Raises:
      click.BadParameter: there is no such rival.
    """
    rivals = {subject.name for subject in SUBJECTS if subject.rival}
    for each in wanted:
        if each not in rivals and each != DIRECT:
            raise click.BadParameter(
                f"no rival is called {each!r}; --list shows them", param_hint="--rival"
            )
    if wanted:
        return [each.name for each in SUBJECTS if not each.rival or each.name in wanted]
    if quick:
        return list(QUICK_SUBJECTS)
    return [each.name for each in SUBJECTS]


def list_all(console: Console) -> None:
    """Print the flows and the subjects, and what is not installed."""
    for flow in FLOWS:
        console.print(f"{flow.name:<18}{flow.title}", markup=False, highlight=False)
    console.print()
    for subject in SUBJECTS:
        advice = subject.missing()
        state = "" if advice is None else f"  (not installed: {advice})"
        console.print(f"{subject.name:<18}{subject.title}{state}", markup=False, highlight=False)


def execute(
    flows: tuple[str, ...],
    rivals: tuple[str, ...],
    *,
    rounds: int,
    seconds: float,
    budget: float,
    output: Path | None,
    quick: bool,
    independence: bool,
    listing: bool,
) -> None:
    """Do what the command line says; parameters are its options.

    Raises:
      click.BadParameter: a flow or a rival that there is not.
    """
    console = Console(width=None if Console().is_terminal else 150)
    if listing:
        list_all(console)
        return
    if independence:
        _independence(rounds, console)
        return
    chosen = choose_flows(flows, quick=quick)
    names = choose_subjects(rivals, quick=quick)
    known = facts()
    console.print(
        f"{known['system']} {known['kernel']}, {known['cpus']} CPUs ({known['processor']}), "
        f"Python {known['python']}, load {known['load']}",
        markup=False,
        highlight=False,
    )
    # Being ended is to end what was started as well.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with console.status("starting") as status:
        found = run(
            chosen,
            names,
            rounds=min(rounds, 3) if quick else rounds,
            seconds=seconds,
            budget=min(budget, 45.0) if quick else budget,
            progress=status.update,
        )
    report.show(found, console)
    if output is not None:
        for path in report.save(found, output):
            console.print(f"wrote {path}", markup=False, highlight=False)


def _independence(rounds: int, console: Console) -> None:
    result = trio.run(measure_independence, rounds)
    rows = (
        ("second viewer, alone", f"{report.number(median(result.pace_alone))} MB/s"),
        ("second viewer, beside one that never reads", f"{result.pace_ratio:.2f} of that"),
        ("Ctrl-C while output is blocked", f"{result.ctrl_c_median:.1f} ms"),
        ("  slowest round", f"{max(result.ctrl_c):.1f} ms"),
    )
    for name, value in rows:
        console.print(f"{name:<44}{value}", markup=False, highlight=False)
