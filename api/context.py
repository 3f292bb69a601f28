"""What the API works with, put together by the composition root."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from quart import current_app, g

from api.addresses import WEBSOCKET_SCHEME, is_host
from auth.authenticator import Authenticator
from auth.principal import Principal
from auth.tickets import TicketOffice
from runtimes.base import SessionHost
from sessions.manager import Manager

EXTENSION = "trunkline"


@dataclass(frozen=True, slots=True)
class Context:
    """The parts that the endpoints call.

    `host` is where the sessions live (asked for its name and isolation only).  `version` is shown
    in the OpenAPI document.  `public_url` (``http(s)://host[:port][/path]``) is what clients
    reach the server by; None means whatever the ``Host`` of the request says.
    """

    manager: Manager
    tickets: TicketOffice
    authenticator: Authenticator
    host: SessionHost
    version: str
    public_url: str | None = None

    def __post_init__(self) -> None:
        if self.public_url is not None:
            parts = urlsplit(self.public_url)
            plain = not (parts.query or parts.fragment) and is_host(parts.netloc)
            if parts.scheme not in WEBSOCKET_SCHEME or not plain:
                raise ValueError(
                    f"public URL {self.public_url!r}: it must look like https://shell.example.com"
                )


def current_context() -> Context:
    """Return the context of the application that serves the current request."""
    return cast("Context", current_app.extensions[EXTENSION])


def current_principal() -> Principal:
    """Return who makes the current request (endpoints that need a credential only)."""
    return cast("Principal", g.principal)
