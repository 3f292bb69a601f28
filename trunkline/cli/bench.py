"""`trunkline bench`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--flow", "flows", multiple=True, help="Only flows that begin so; may be repeated.")
@click.option(
    "--rival",
    "rivals",
    multiple=True,
    help="Compare with this one; may be repeated. 'none': without any.  [default: all]",
)
@click.option(
    "--rounds", default=5, show_default=True, type=click.IntRange(1, 100), help="At most."
)
@click.option(
    "--seconds",
    default=0.15,
    show_default=True,
    type=click.FloatRange(0.02, 30),
    help="About how long one measurement takes.",
)
@click.option(
    "--budget",
    default=270.0,
    show_default=True,
    type=click.FloatRange(1),
    help="Seconds for everything; no round begins that would not fit.",
)
@click.option("--quick", is_flag=True, help="The main flows, no rivals, 3 rounds: some 15 seconds.")
@click.option(
    "--independence", is_flag=True, help="Instead: what a viewer that never reads costs others."
)
@click.option("--list", "listing", is_flag=True, help="Show the flows and the rivals.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write bench.json and bench.html into this directory.",
)
def bench(
    flows: tuple[str, ...],
    rivals: tuple[str, ...],
    rounds: int,
    seconds: float,
    budget: float,
    output: Path | None,
    *,
    quick: bool,
    independence: bool,
    listing: bool,
) -> None:
    """Measure Trunkline on this machine, beside whichever rivals are installed.

    Everything runs on loopback in processes of its own. Compare ratios, never absolute figures.
    """
    # Imported here, because only this command needs it.
    from bench.command import execute

    execute(
        flows,
        rivals,
        rounds=rounds,
        seconds=seconds,
        budget=budget,
        output=output,
        quick=quick,
        independence=independence,
        listing=listing,
    )
