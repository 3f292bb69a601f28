"""`trunkline serve`."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import trio

from trunkline.config import ConfigError, load_config
from trunkline.settings import (
    LOG_LEVELS,
    RUNTIMES,
    Ready,
    Settings,
    SettingsError,
    default_data_dir,
)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0: a free one."
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where records and keys are kept.  [default: ~/.local/share/trunkline]",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="TOML file: profiles, names of the server, limits.",
)
@click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    default="auto",
    show_default=True,
    help="Where sessions run. bubblewrap: isolated, on this machine; local: as you, not isolated; "
    "auto: bubblewrap where it works, else local.",
)
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Certificate chain (PEM).")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Its private key (PEM).")
@click.option("--dev", is_flag=True, help="Accept any bearer token; on loopback only.")
@click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS),
    default="info",
    show_default=True,
    help="How much.",
)
def serve(
    host: str,
    port: int,
    data_dir: Path | None,
    config: Path | None,
    runtime: str,
    tls_cert: Path | None,
    tls_key: Path | None,
    log_level: str,
    *,
    dev: bool,
) -> None:
    """Start the server and print a URL that opens a terminal in the browser.

    Everything goes through one port: the web pages, the API, and every stream. SIGTERM or Ctrl-C
    stops it gracefully; a second Ctrl-C at once.
    """
    try:
        settings = Settings(
            data_dir=(data_dir or default_data_dir()).absolute(),
            host=host,
            port=port,
            runtime=runtime,
            dev=dev,
            tls_cert=tls_cert,
            tls_key=tls_key,
            config=load_config(config),
        )
    except ConfigError as error:
        raise click.ClickException(str(error)) from error
    _run(settings, log_level)


def _run(settings: Settings, log_level: str) -> None:
    # Imported here, because the server's libraries would treble the start of every other command.
    from trunkline.logs import configure_logs

    configure_logs(log_level)
    from trunkline.server import STARTUP_ERRORS, serve

    try:
        trio.run(serve, settings, _announce)
    except* (SettingsError, *STARTUP_ERRORS) as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise click.ClickException(str(error)) from None


def _announce(ready: Ready) -> None:
    if not ready.isolated:
        click.secho(
            f"Sessions of the {ready.runtime!r} runtime are not isolated: whoever can log in can do "
            "what you can do.",
            err=True,
        )
        if ready.fallback:
            click.echo(f"Isolation does not work here: {ready.fallback}.", err=True)
    click.echo("Trunkline is ready. Open this in a browser (it logs in once, within 15 minutes;")
    click.echo("'trunkline open' prints another):\n")
    click.echo(f"  {click.style(ready.login_url, bold=True)}\n")
    sys.stdout.flush()
