"""`trunkline desktop`."""

from __future__ import annotations

import contextlib
import os
import sys
import webbrowser

import click

from trunkline.cli.running import run
from trunkline.sdk.client import open_client


@click.command()
@click.argument("session_id", metavar="ID")
@click.option("--view", is_flag=True, help="Open it for viewing only.")
@click.option("--print", "only_print", is_flag=True, help="Print the URL only.")
def desktop(session_id: str, *, view: bool, only_print: bool) -> None:
    """Open the desktop of session ID in a browser, and print its URL.

    The URL logs a browser in once, within 15 minutes.  The desktop is started when the page is
    first opened; the profile says what runs on it (key 'desktop').
    """

    async def main() -> str:
        async with open_client() as client:
            await client.session(session_id).info()  # so that a wrong id is told here
            code = await client.api.login_code()
            flag = "&view" if view else ""
            return f"{client.server.url}/desktop/{session_id}#code={code}{flag}"

    url = run(main)
    click.echo(url)
    if not only_print and sys.stdout.isatty() and _has_screen():
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(url)


def _has_screen() -> bool:
    """Tell whether a browser would have somewhere to show itself, beyond this terminal."""
    return sys.platform == "darwin" or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
