"""`trunkline ps` and `trunkline kill`."""

from __future__ import annotations

import shlex

import click

from trunkline.cli.output import print_json, span
from trunkline.cli.running import run
from trunkline.sdk.api import StreamInfo
from trunkline.sdk.client import open_client


@click.command()
@click.argument("session_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print all about them as JSON.")
def ps(session_id: str, *, as_json: bool) -> None:
    """List the streams of session ID: what runs in it, and who is attached."""

    async def main() -> list[StreamInfo]:
        async with open_client() as client:
            return await client.session(session_id).streams()

    streams = run(main)
    if as_json:
        print_json(streams)
        return
    if not streams:
        click.echo("nothing runs there; 'trunkline attach' starts a shell", err=True)
        return
    from rich.console import Console  # here, because it is slow to import
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("TAG", "KIND", "PID", "STATE", "AGE", "BYTES", "ATTACHED", "COMMAND"):
        table.add_column(heading, justify="right" if heading == "BYTES" else "left", no_wrap=True)
    for stream in streams:
        table.add_row(
            stream.tag,
            stream.kind,
            "" if stream.pid is None else str(stream.pid),
            _state(stream),
            span(stream.age_seconds),
            str(sum(channel.next_offset for channel in stream.channels)),
            _attached(stream),
            shlex.join(stream.command) or "(shell)",
        )
    Console(soft_wrap=True).print(table)


def _state(stream: StreamInfo) -> str:
    if stream.signal is not None:
        return f"ended ({stream.signal})"
    if stream.exit_code is not None:
        return f"ended ({stream.exit_code})"
    return stream.state


def _attached(stream: StreamInfo) -> str:
    connected = [a for a in stream.attachments if a.connected]
    behind = max((a.lag for a in connected), default=0)
    return f"{len(connected)}, {behind} behind" if behind else str(len(connected))


@click.command()
@click.argument("session_id", metavar="ID")
@click.argument("tags", metavar="TAG...", nargs=-1, required=True)
@click.option("--signal", "-s", "name", default="TERM", show_default=True, help="Without SIG.")
def kill(session_id: str, tags: tuple[str, ...], name: str) -> None:
    """Send a signal to streams of session ID; 'trunkline ps' lists their tags."""

    async def main() -> None:
        async with open_client() as client:
            for tag in tags:
                await client.session(session_id).send_signal(tag, name.upper().removeprefix("SIG"))

    run(main)
