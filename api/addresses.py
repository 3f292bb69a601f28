"""The addresses that the API hands out.  Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
"""``Host`` of RFC 9110 §7.2, without what no real host name has."""

WEBSOCKET_SCHEME: Mapping[str, str] = MappingProxyType({"http": "ws", "https": "wss"})


class HostError(Exception):
    """The request's ``Host`` is missing or is no host; the message is shown to the user."""


def is_host(host: str) -> bool:
    """Tell whether `host` is a host with an optional port, fit for an address or a header."""
    return _HOST.fullmatch(host) is not None


def websocket_base(scheme: str, host: str | None, public_url: str | None) -> str:
    """Return what the WebSocket addresses begin with, without a slash at the end.

    `scheme` (``http`` or ``https``) and `host` are those of the request; `public_url` wins.

    Raises:
      HostError: there is no `public_url` and `host` cannot be put into an address.
    """
    if public_url is None:
        if host is None or not is_host(host):
            raise HostError("The Host header must name the server, as in Host: 127.0.0.1:8080.")
        public_url = f"{scheme}://{host}"
    scheme, _, rest = public_url.partition("://")
    return f"{WEBSOCKET_SCHEME[scheme.lower()]}://{rest.rstrip('/')}"


def pty_url(base: str, session_id: str) -> str:
    """Return the WebSocket address of a session; `base` is that of `websocket_base`."""
    return f"{base}/v1/sessions/{session_id}/pty"
