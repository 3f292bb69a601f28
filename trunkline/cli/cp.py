"""`trunkline cp` and `trunkline files`."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from trunkline.cli.attached import Notices
from trunkline.cli.copying import Copier, CopyFailed, Report
from trunkline.cli.progress import Meter, open_meter
from trunkline.cli.running import FAILED, run
from trunkline.sdk.client import open_client
from trunkline.sdk.files import FileInfo

STANDARD = "-"
"""Stands for standard input or output."""

_REMOTE = re.compile(r"([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}):(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Remote:
    """A path in a session."""

    session_id: str
    path: str


def parse_place(text: str) -> Remote | str:
    """Return what ``ID:path`` means, or a local path (or ``-``) as it is."""
    match = _REMOTE.fullmatch(text)
    return text if match is None else Remote(match[1].lower(), match[2] or ".")


@click.command()
@click.argument("source", metavar="A")
@click.argument("target", metavar="B")
@click.option("--recursive", "-r", is_flag=True, help="Copy directories with all that is in them.")
@click.option("--no-clobber", "-n", is_flag=True, help="Fail rather than replace a file.")
@click.option("--quiet", "-q", is_flag=True, help="Show no progress.")
def cp(source: str, target: str, *, recursive: bool, no_clobber: bool, quiet: bool) -> None:
    """Copy files into a session, or out of it: one of A and B is ID:PATH.

    The other is a local path, or - for standard input or output. Paths in a session begin at its
    home, unless they are absolute. Modes and times are kept; every file is checked by its SHA-256 and
    appears when it is complete. A connection that is cut makes itself again, and the copy goes on.

    Links within a directory are not followed, and neither they nor devices are copied: they are told
    of, and the exit code is 1.
    """
    here, there = parse_place(source), parse_place(target)
    if isinstance(here, Remote) == isinstance(there, Remote):
        raise click.UsageError("one of A and B, and only one, is a path in a session: ID:PATH")
    if recursive and STANDARD in {here, there}:
        raise click.UsageError("a directory does not fit into a single stream; leave out -r or -")
    with open_meter(enabled=not quiet and there != STANDARD) as meter:
        report = run(lambda: _copy(here, there, meter, recursive=recursive, clobber=not no_clobber))
    for message in report.skipped:
        click.secho(f"trunkline: not copied: {message}", err=True)
    if report.skipped:
        sys.exit(FAILED)


async def _copy(
    source: Remote | str, target: Remote | str, meter: Meter, *, recursive: bool, clobber: bool
) -> Report:
    remote = source if isinstance(source, Remote) else target
    if not isinstance(remote, Remote):
        raise CopyFailed("one of the two is a path in a session")
    async with (
        open_client() as client,
        client.session(remote.session_id).files(observe=Notices(meter.notice)) as files,
    ):
        copier = Copier(files, meter, recursive=recursive, overwrite=clobber)
        if isinstance(source, Remote):
            if target == STANDARD:
                await copier.to_standard_output(source.path)
            else:
                await copier.down(source.path, Path(str(target)), str(target))
        elif source == STANDARD:
            await copier.from_standard_input(remote.path)
        else:
            await copier.up(Path(str(source)), remote.path)
        return copier.report


@click.command()
@click.argument("session_id", metavar="ID")
@click.argument("path", metavar="[PATH]", default=".")
@click.option("--depth", default=1, show_default=True, type=click.IntRange(1, 64), help="Levels.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
def files(session_id: str, path: str, depth: int, *, as_json: bool) -> None:
    """List the files in session ID."""
    import msgspec  # here, as below: only this command needs it

    def show(info: FileInfo) -> None:
        click.echo(msgspec.json.encode(info) if as_json else _line(info))

    async def main() -> None:
        async with open_client() as client, client.session(session_id).files() as session_files:
            info = await session_files.stat(path)
            if not info.is_directory:
                show(info)
                return
            async with session_files.list(path, depth) as entries:
                async for entry in entries:
                    show(entry)

    run(main)


def _line(info: FileInfo) -> str:
    """Return a line as of `ls -l`."""
    import stat
    from datetime import datetime

    kinds = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "symlink": stat.S_IFLNK}
    mode = stat.filemode(kinds.get(info.type, 0) | info.mode)
    time = datetime.fromtimestamp(info.modified // 10**9).astimezone()
    size = "?" if info.size is None else str(info.size)
    end = f" -> {info.target}" if info.target else "/" if info.is_directory else ""
    name = "".join(c if c.isprintable() else "?" for c in info.path + end)
    return f"{mode} {size:>12} {time:%Y-%m-%d %H:%M} {name}"
