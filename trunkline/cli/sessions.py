"""`trunkline new`, `ls`, `pause`, `resume`, `stop`, `start`, `rm` and `open`."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import click

from trunkline.cli.output import print_json, span
from trunkline.cli.running import run
from trunkline.sdk.api import SessionInfo
from trunkline.sdk.client import open_client

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Duration(click.ParamType[int]):
    """A span of time such as ``90s``, ``15m``, ``1h``, ``2d``, or a number of seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the seconds."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"([0-9]{1,9})([smhd]?)", str(value))
        if match is None:
            self.fail(f"{value!r} is no duration; write 90s, 15m, 1h or 2d", param, ctx)
        return int(match[1]) * _UNITS[match[2] or "s"]


@click.command()
@click.option("--profile", default="default", show_default=True, help="What kind of session.")
@click.option("--ttl", type=Duration(), default=0, help="How long it lives: 90s, 15m, 1h, 2d.")
@click.option("--json", "as_json", is_flag=True, help="Print all about it as JSON.")
def new(profile: str, ttl: int, *, as_json: bool) -> None:
    """Make a session and print its id."""

    async def main() -> SessionInfo:
        async with open_client() as client:
            session = await client.create_session(profile, ttl)
            return await session.info()

    info = run(main)
    if as_json:
        print_json(info)
    else:
        click.echo(info.session_id)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--all", "-a", "everything", is_flag=True, help="Also those that have ended.")
def ls(*, as_json: bool, everything: bool) -> None:
    """List your sessions, newest first."""

    async def main() -> list[SessionInfo]:
        async with open_client() as client:
            return await client.sessions()

    sessions = [s for s in run(main) if everything or s.status != "terminated"]
    if as_json:
        print_json(sessions)
        return
    if not sessions:
        click.echo("no sessions; 'trunkline new' makes one", err=True)
        return
    from rich.console import Console  # here, because it is slow to import
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("ID", "STATE", "PROFILE", "AGE", "LEFT", "REASON"):
        table.add_column(heading, no_wrap=heading != "REASON")
    now = datetime.now(UTC)
    for session in sessions:
        ended = session.status == "terminated"
        table.add_row(
            session.session_id,
            session.state,
            session.profile,
            span((now - session.created_at).total_seconds()),
            "" if ended else span((session.expires_at - now).total_seconds()),
            session.reason or "",
        )
    Console(soft_wrap=True).print(table)


@click.command()
@click.argument("session_ids", metavar="ID...", nargs=-1, required=True)
def rm(session_ids: tuple[str, ...]) -> None:
    """End sessions and everything in them."""

    async def main() -> None:
        async with open_client() as client:
            for session_id in session_ids:
                await client.session(session_id).delete()

    run(main)


@click.command()
@click.argument("session_ids", metavar="ID...", nargs=-1, required=True)
def pause(session_ids: tuple[str, ...]) -> None:
    """Stop everything in sessions where it is, until 'resume'."""

    async def main() -> None:
        async with open_client() as client:
            for session_id in session_ids:
                await client.session(session_id).pause()

    run(main)


@click.command()
@click.argument("session_ids", metavar="ID...", nargs=-1, required=True)
def resume(session_ids: tuple[str, ...]) -> None:
    """Let everything in paused sessions go on."""

    async def main() -> None:
        async with open_client() as client:
            for session_id in session_ids:
                await client.session(session_id).resume()

    run(main)


@click.command()
@click.argument("session_ids", metavar="ID...", nargs=-1, required=True)
def stop(session_ids: tuple[str, ...]) -> None:
    """End everything in sessions but their homes, until 'start'."""

    async def main() -> None:
        async with open_client() as client:
            for session_id in session_ids:
                await client.session(session_id).stop()

    run(main)


@click.command()
@click.argument("session_ids", metavar="ID...", nargs=-1, required=True)
def start(session_ids: tuple[str, ...]) -> None:
    """Start stopped sessions again, with the homes they had."""

    async def main() -> None:
        async with open_client() as client:
            for session_id in session_ids:
                await client.session(session_id).start()

    run(main)


@click.command(name="open")
@click.argument("session_id", metavar="[ID]", required=False)
def open_(session_id: str | None) -> None:
    """Print a URL that opens the terminal in a browser.

    It logs a browser in once, within 15 minutes.
    """

    async def main() -> str:
        async with open_client() as client:
            code = await client.api.login_code()
            path = f"/t/{session_id}" if session_id else "/"
            return f"{client.server.url}{path}#code={code}"

    click.echo(run(main))
