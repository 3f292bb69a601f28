"""The headers that every response carries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from urllib.parse import urlsplit

from api.addresses import WEBSOCKET_SCHEME, is_host


def content_security_policy(
    *,
    script_hashes: Iterable[str] = (),
    host: str | None = None,
    public_url: str | None = None,
) -> str:
    """Return the policy of a page that loads everything from this server.

    `script_hashes` are the sources of its inline import maps.  `host` is the request's: not every
    browser takes ``'self'`` to mean WebSockets too, so they are named.  The tickets' addresses
    begin with `public_url` where there is one, so the page may connect there as well.
    """
    connect = ["'self'"]
    if host is not None and is_host(host):
        connect += [f"{scheme}://{host}" for scheme in WEBSOCKET_SCHEME.values()]
    if public_url is not None:
        parts = urlsplit(public_url)
        connect.append(f"{WEBSOCKET_SCHEME[parts.scheme]}://{parts.netloc}")
    directives = (
        ("default-src", ["'none'"]),
        ("script-src", ["'self'", *script_hashes]),
        # xterm.js sets inline styles.
        ("style-src", ["'self'", "'unsafe-inline'"]),
        ("connect-src", list(dict.fromkeys(connect))),
        ("img-src", ["'self'", "data:"]),
        ("font-src", ["'self'"]),
        ("frame-ancestors", ["'none'"]),
        ("base-uri", ["'none'"]),
        ("form-action", ["'none'"]),
    )
    return "; ".join(" ".join((name, *sources)) for name, sources in directives)


DEFAULT_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Cache-Control": "no-store",
        "Content-Security-Policy": content_security_policy(),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": (
            "camera=(), display-capture=(), geolocation=(), microphone=(), midi=(), payment=(),"
            " serial=(), usb=()"
        ),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
)
"""Set on every response that does not set them itself."""
