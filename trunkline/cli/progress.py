"""How far a copy is: a bar on a terminal, nothing anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Meter:
    """Counts bytes of several files at once.  Without a bar it only counts.  Made by `open_meter`."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._task: TaskID | None = None
        self.total = 0
        self.done = 0

    def expect(self, size: int) -> None:
        """Add to what there is to do, in bytes."""
        self.total += size
        self._show()

    def advance(self, count: int) -> None:
        """Note that `count` more bytes are done; fewer, if it is negative."""
        self.done += count
        self._show()

    def name(self, what: str) -> None:
        """Say what is being copied."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, description=_short(what))

    def notice(self, message: str) -> None:
        """Tell the user something without disturbing the bar."""
        line = f"[trunkline: {message}]"
        if self._progress is not None:
            self._progress.console.print(line, markup=False, highlight=False)
        else:
            click.echo(line, err=True)

    def _show(self) -> None:
        if self._progress is None:
            return
        if self._task is None:
            self._task = self._progress.add_task("", total=None)
        self._progress.update(self._task, total=self.total, completed=self.done)


def _short(text: str) -> str:
    """Return the end of `text`, fit for a terminal."""
    shown = "".join(c if c.isprintable() else "?" for c in text).replace("[", "\\[")
    return shown if len(shown) <= 32 else f"…{shown[-31:]}"


@contextmanager
def open_meter(*, enabled: bool) -> Iterator[Meter]:
    """Show a bar on standard error while the block runs, if that is a terminal."""
    if not enabled or not sys.stderr.isatty():
        yield Meter(None)
        return
    from rich.console import Console  # here, because it is slow to import
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield Meter(progress)
