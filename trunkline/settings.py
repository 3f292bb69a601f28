"""What the command line tells the server, and what the server tells back."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from trunkline.config import Config

RUNTIMES = ("auto", "bubblewrap", "local", "container", "kubernetes", "ssh", "fake")
LOG_LEVELS = ("debug", "info", "warning", "error")


class SettingsError(Exception):
    """The settings contradict each other; the message says how."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says.  `port` 0 takes a free one."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8080
    runtime: str = "auto"
    dev: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    config: Config = field(default_factory=Config)


@dataclass(frozen=True, slots=True)
class Ready:
    """What a server that is ready tells: where it is, and a URL that logs a browser in once.

    `fallback` says why the runtime is not the best one, where a better one was tried.
    """

    url: str
    login_url: str
    isolated: bool
    runtime: str
    fallback: str = ""


def default_data_dir() -> Path:
    """Return ``$XDG_DATA_HOME/trunkline``, or its usual place."""
    data = Path(os.environ.get("XDG_DATA_HOME") or "")
    base = data if data.is_absolute() else Path.home() / ".local" / "share"
    return base / "trunkline"
