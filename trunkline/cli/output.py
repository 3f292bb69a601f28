"""How commands print: JSON for programs, short spans of time for people."""

from __future__ import annotations

import click
import msgspec


def print_json(value: object) -> None:
    """Print `value` as indented JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def span(seconds: float) -> str:
    """Return a span of time in its largest fitting unit: ``90s``, ``15m``, ``3h``, ``2d``."""
    rest = max(0, int(seconds))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if rest >= 2 * size:
            return f"{rest // size}{unit}"
    return f"{rest}s"
