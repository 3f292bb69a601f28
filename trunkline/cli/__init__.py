"""The command line: `trunkline --help`."""

from __future__ import annotations

import click

from trunkline.cli.attach import attach, exec_
from trunkline.cli.bench import bench
from trunkline.cli.cp import cp, files
from trunkline.cli.desktop import desktop
from trunkline.cli.forward import forward, proxy
from trunkline.cli.serve import serve
from trunkline.cli.sessions import ls, new, open_, pause, resume, rm, start, stop
from trunkline.cli.streams import kill, ps
from trunkline.cli.terminal import occupy_standard_descriptors
from trunkline.version import VERSION

EPILOG = """\b
Try it:
  trunkline serve                      start a server; open the URL it prints
  trunkline new                        make a session; prints its id
  trunkline attach ID                  work in its terminal; Ctrl-] detaches
  trunkline exec ID -- uname -a        run a command in it
  trunkline cp notes.txt ID:           copy a file into it, or out of it
  trunkline forward ID 8080            reach its port 8080 on this machine
  trunkline desktop ID                 open its desktop in a browser

Commands find the server through TRUNKLINE_URL and TRUNKLINE_TOKEN, or else
the one that you have running on this machine.
"""


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="trunkline")
def main() -> None:
    """Terminals and byte streams of sandboxes that survive the cut."""
    occupy_standard_descriptors()


for command in (
    serve,
    new,
    ls,
    pause,
    resume,
    stop,
    start,
    rm,
    attach,
    exec_,
    cp,
    files,
    forward,
    proxy,
    desktop,
    ps,
    kill,
    open_,
    bench,
):
    main.add_command(command)
