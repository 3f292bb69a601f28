"""``python -m bench``: run the benchmarks and print a table."""

from __future__ import annotations

import os
import platform
import statistics

import click
import trio

from bench.independence import measure


@click.command()
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(1, 100))
def main(rounds: int) -> None:
    """Measure on this machine, against a real server in a process of its own."""
    load = os.getloadavg()[0]
    click.echo(
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, "
        f"Python {platform.python_version()}, load {load:.1f} at the start"
    )
    result = trio.run(measure, rounds)
    click.echo(f"{rounds} interleaved rounds; medians")
    rows = (
        ("second viewer, alone", f"{statistics.median(result.pace_alone):.1f} MB/s"),
        ("second viewer, beside one that never reads", f"{result.pace_ratio:.2f} of that"),
        ("Ctrl-C while output is blocked", f"{result.ctrl_c_median:.1f} ms"),
        ("  slowest round", f"{max(result.ctrl_c):.1f} ms"),
    )
    for name, value in rows:
        click.echo(f"  {name:<44}{value}")


if __name__ == "__main__":
    main()
