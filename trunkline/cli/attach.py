"""`trunkline attach` and `trunkline exec`."""

from __future__ import annotations

import secrets
import sys

import click

from relay.endpoint import ExitStatus
from relay.grant import Mode
from trunkline.cli.attached import Detached, Notices, exit_code, run_piped, run_terminal
from trunkline.cli.running import run
from trunkline.cli.terminal import Descriptor, terminal_size
from trunkline.sdk.client import DEFAULT_TAG, open_client


def _notice(message: str) -> None:
    # In raw mode a line feed alone does not go back to the first column.
    end = "\r\n" if sys.stdin.isatty() else "\n"
    sys.stderr.write(f"{end}[trunkline: {message}]{end}")
    sys.stderr.flush()


@click.command()
@click.argument("session_id", metavar="ID")
@click.option("--tag", default=DEFAULT_TAG, show_default=True, help="Which terminal.")
@click.option("--view", is_flag=True, help="Watch only.")
@click.option("--takeover", is_flag=True, help="Take control from whoever has it.")
def attach(session_id: str, tag: str, *, view: bool, takeover: bool) -> None:
    """Work in the terminal of session ID.

    Ctrl-] detaches; what runs goes on.  A connection that is cut makes itself again, and nothing
    is lost.  The exit code is that of the shell.
    """
    if view and takeover:
        raise click.UsageError("--view and --takeover exclude each other")

    async def main() -> ExitStatus:
        mode = Mode.VIEW if view else Mode.CONTROL
        async with (
            open_client() as client,
            client.session(session_id).connect(
                mode=mode, tag=tag, observe=Notices(_notice)
            ) as connection,
        ):
            screen = Descriptor(1)
            terminal = await connection.terminal(
                tag,
                size=terminal_size(screen),
                takeover=takeover,
                restart=True,
                replay="screen" if screen.is_terminal else "all",
            )
            try:
                return await run_terminal(terminal, interactive=True, tell=_notice)
            except* Detached:
                _notice(f"detached; 'trunkline attach {session_id}' brings you back")
                raise

    status = run(main)
    sys.exit(exit_code(status))


@click.command(name="exec", context_settings={"ignore_unknown_options": False})
@click.argument("session_id", metavar="ID")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--tty", "-t", is_flag=True, help="Give it a terminal.")
@click.option("--tag", help="Name it; a second exec with the same tag attaches to it.")
def exec_(session_id: str, command: tuple[str, ...], *, tty: bool, tag: str | None) -> None:
    """Run COMMAND in session ID; put -- before it.

    Standard input is passed in, standard output and error come out apart, and its exit code is
    ours.  A connection that is cut makes itself again, and nothing is lost.  Ctrl-C is passed on
    to the command; a second one kills it, a third one gives up.
    """
    name = tag or f"exec-{secrets.token_hex(4)}"

    async def main() -> ExitStatus:
        async with (
            open_client() as client,
            client.session(session_id).connect(tag=name, observe=Notices(_notice)) as connection,
        ):
            if not tty:
                return await run_piped(await connection.exec(command, tag=name), _notice)
            screen = Descriptor(1)
            terminal = await connection.terminal(
                name,
                command=command,
                size=terminal_size(screen),
                replay="screen" if screen.is_terminal else "all",
            )
            return await run_terminal(terminal, interactive=True, tell=_notice)

    sys.exit(exit_code(run(main)))
