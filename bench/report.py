"""What a run found: a table for people, JSON for machines, a page with bars."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.machine import facts
from bench.measure import DIRECT, NO_TIME, Case, Flow, Run

SCHEMA = 1
"""Grows when a field of the JSON changes its meaning or goes away."""
OURS = ("trunkline", "trunkline-forward")
"""What rivals are compared with, the first that a flow has."""


def flows_of(run: Run) -> list[tuple[Flow, list[Case]]]:
    """Return the flows with their cases, in order."""
    grouped: dict[str, tuple[Flow, list[Case]]] = {}
    for case in run.cases:
        grouped.setdefault(case.flow.name, (case.flow, []))[1].append(case)
    return list(grouped.values())


def number(value: float | None) -> str:
    """Return three significant digits, without an exponent."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _ours(cases: list[Case]) -> Case | None:
    """Return the case of Trunkline that others are compared with."""
    for name in OURS:
        for case in cases:
            if case.subject.name == name:
                return case
    return None


def _rows(run: Run) -> Iterator[tuple[bool, list[str]]]:
    for flow, cases in flows_of(run):
        ours = _ours(cases)
        for case in cases:
            first = case is cases[0]
            versus = ""
            if ours is not None and case is not ours and case.subject.rival:
                versus = number(run.ratio(ours, case.subject.name))
            damage = case.damage
            cost = _cost(case)
            yield (
                first,
                [
                    f"{flow.title}" if first else "",
                    case.subject.title,
                    ("late" if case.problem == NO_TIME else "failed")
                    if case.value is None
                    else number(case.value) + _mark(run, case),
                    flow.unit if first else "",
                    number(run.ratio(case, flow.reference)) if flow.reference else "",
                    versus,
                    number(cost),
                    number(run.ratio(case, flow.reference, cost=True)) if flow.reference else "",
                    "" if damage.clean else f"{damage.lost}/{damage.repeated}",
                ],
            )


def _mark(run: Run, case: Case) -> str:
    return "*" if run.limited(case) else ""


def _cost(case: Case) -> float | None:
    """Return CPU milliseconds per MB, or microseconds per operation."""
    costs = sorted(cost for cost in case.costs if cost)
    if not costs:
        return None
    factor = 1e3 if case.flow.unit == "MB/s" else 1e6
    return costs[len(costs) // 2] * factor


def show(run: Run, console: Console) -> None:
    """Print the table, what is missing, and whether to trust it."""
    table = Table(caption=CAPTION, caption_justify="left", pad_edge=False)
    table.add_column("flow")
    table.add_column("subject")
    for head in ("median", "", "x reference", "ours x", "CPU", "per CPU", "lost/twice"):
        table.add_column(head, justify="right" if head else "left", no_wrap=True)
    for first, row in _rows(run):
        if first and table.row_count:
            table.add_section()
        bold = "bold" if row[1].startswith("Trunkline") else ""
        table.add_row(*row, style=bold)
    console.print(table)
    late = sum(case.problem == NO_TIME for case in run.cases)
    if late:
        console.print(f"{late} measurements: {NO_TIME}; a larger --budget helps", markup=False)
    for case in run.cases:
        if case.problem and case.problem != NO_TIME:
            console.print(f"{case.flow.name}, {case.subject.name}: {case.problem}", markup=False)
    for name, advice in run.missing.items():
        console.print(f"not installed: {name} ({advice})", markup=False)
    console.print(f"{run.rounds} rounds in {run.seconds:.0f} s. {verdict(run)}", markup=False)


CAPTION = """\
x reference: median of the ratios within each round, to the SocketStream relay (over one trunk: to two of
them; terminals and commands: to no relay). Ours x: Trunkline to this rival. For times, less is better. CPU: of the
relay's processes, ms per MB, or µs per operation; per CPU: work per CPU-second against the reference.
*: over 60 % of what the load generator does without a relay, so the relay may be faster than shown."""


def verdict(run: Run) -> str:
    """Return in words how steady the machine was."""
    if complaints := run.noise.complaints:
        return f"The machine was NOISY, do not trust single figures: {'; '.join(complaints)}."
    return f"The machine was quiet (calibration loop ±{run.noise.spread:.0%})."


def document(run: Run) -> dict[str, Any]:
    """Return the JSON document."""
    return {
        "schema": SCHEMA,
        "machine": facts(),
        "rounds": run.rounds,
        "seconds": round(run.seconds, 1),
        "noise": {
            "loop_ms": run.noise.loop_ms,
            "spread": run.noise.spread,
            "steal": run.noise.steal,
            "others": run.noise.others,
            "complaints": run.noise.complaints,
        },
        "missing": run.missing,
        "rows": [
            {
                "flow": case.flow.name,
                "subject": case.subject.name,
                "unit": case.flow.unit,
                "more_is_better": case.flow.more,
                "reference": case.flow.reference,
                "values": case.values,
                "costs": case.costs,
                "median": case.value,
                "ratio": run.ratio(case, case.flow.reference),
                "ratio_per_cpu": run.ratio(case, case.flow.reference, cost=True),
                "lost": case.damage.lost,
                "repeated": case.damage.repeated,
                "changed": case.damage.changed,
                "limited": run.limited(case),
                "problem": case.problem,
            }
            for case in run.cases
        ],
    }


def page(run: Run) -> str:
    """Return a page that needs nothing else: a bar for each subject of each flow."""
    parts = [HEAD, f"<p>{html.escape(verdict(run))} {run.rounds} rounds.</p>"]
    for flow, cases in flows_of(run):
        shown = [case for case in cases if case.value is not None and case.subject.name != DIRECT]
        most = max((case.value or 0.0 for case in shown), default=0.0) or 1.0
        better = "more" if flow.more else "less"
        title = html.escape(f"{flow.title} ({flow.unit or 'index'}; {better} is better)")
        parts.append(f"<h2>{title}</h2><table>")
        for case in shown:
            value = case.value or 0.0
            kind = "ours" if case.subject.name.startswith("trunkline") else "other"
            name = html.escape(case.subject.title)
            parts.append(
                f"<tr><th>{name}</th><td><div class={kind} style='width:{100 * value / most:.1f}%'>"
                f"</div></td><td>{number(value)}{_mark(run, case)}</td></tr>"
            )
        parts.append("</table>")
    return "\n".join(parts)


HEAD = """\
<!doctype html><meta charset=utf-8><title>Trunkline: benchmarks</title>
<style>
body { font: 14px sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; }
h2 { font-size: 1em; margin: 1.5em 0 .3em; }
table { border-collapse: collapse; width: 100%; }
th { font-weight: normal; text-align: left; width: 18em; }
td:last-child { width: 6em; text-align: right; }
.ours { background: #0a7; height: 1em; } .other { background: #aab; height: 1em; }
</style><h1>Trunkline: benchmarks</h1>"""


def save(run: Run, directory: Path) -> list[Path]:
    """Write ``bench.json`` and ``bench.html``; return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    data, plot = directory / "bench.json", directory / "bench.html"
    data.write_text(json.dumps(document(run), indent=1) + "\n")
    plot.write_text(page(run))
    return [data, plot]
