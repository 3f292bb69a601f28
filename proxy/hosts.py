"""Who may talk to this server by which name: the Host and Origin allow-lists.

A page on another site can make a visitor's browser open a WebSocket to, or post to, a server on the
visitor's machine or network (cross-site WebSocket hijacking), and a DNS name under an attacker's
control can be pointed at 127.0.0.1 (DNS rebinding).  Both are stopped by exact lists: of the names
the server answers to, and of the origins whose pages may change something.

Pure: no I/O, no state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing; a page of another origin cannot read the answers anyway."""

_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, slots=True)
class Refused:
    """A request is not let in: the HTTP status to answer with, and what to tell the client."""

    status: int
    detail: str


@dataclass(frozen=True, slots=True)
class HostPolicy:
    """Exact allow-lists.

    `hosts` are values of the Host header, `origins` of the Origin header, both in lower case and
    with the port exactly where a browser would write it (never the scheme's default one).
    """

    hosts: frozenset[str]
    origins: frozenset[str]

    @classmethod
    def for_hosts(
        cls, hosts: Iterable[str], *, scheme: str = "http", origins: Iterable[str] = ()
    ) -> HostPolicy:
        """Allow `hosts` (``name`` or ``name:port``), their own origins under `scheme`, and `origins`.

        `scheme` is what browsers see: ``https`` behind a proxy that ends TLS, too.
        """
        names = frozenset(host.lower() for host in hosts)
        own = {f"{scheme}://{name}" for name in names}
        return cls(names, frozenset(own | {origin.lower().rstrip("/") for origin in origins}))

    @classmethod
    def loopback(cls, port: int, *, scheme: str = "http") -> HostPolicy:
        """Allow the names of this machine itself, with `port`."""
        suffix = "" if _DEFAULT_PORTS.get(scheme) == port else f":{port}"
        return cls.for_hosts((name + suffix for name in _LOOPBACK_NAMES), scheme=scheme)

    def check_host(self, values: Sequence[bytes]) -> Refused | None:
        """Judge the values of all Host fields of a request (RFC 9112 §3.2); None lets it in."""
        if len(values) != 1:
            what = "no" if not values else "more than one"
            return Refused(400, f"The request has {what} Host header; it must have exactly one.")
        host = values[0].decode("latin-1").strip().lower()
        if host in self.hosts:
            return None
        return Refused(
            421,
            f"This server does not answer to the name {_quoted(host)}. Use one of its own names, or"
            " have its operator add this one to the allowed hosts.",
        )

    def check_origin(
        self, values: Sequence[bytes], method: str, *, websocket: bool = False
    ) -> Refused | None:
        """Judge the values of all Origin fields; None lets the request in.

        A request without Origin does not come from a page and is let in.
        """
        if not values or (method in SAFE_METHODS and not websocket):
            return None
        origin = values[0].decode("latin-1").strip().lower()
        if len(values) == 1 and origin in self.origins:
            return None
        return Refused(
            403,
            f"Pages of the origin {_quoted(origin)} may not use this server. If this one should,"
            " have its operator add it to the allowed origins.",
        )

    def check(
        self,
        method: str,
        hosts: Sequence[bytes],
        origins: Sequence[bytes],
        *,
        websocket: bool = False,
    ) -> Refused | None:
        """Judge a request by its Host first, then its Origin; None lets it in."""
        return self.check_host(hosts) or self.check_origin(origins, method, websocket=websocket)


def _quoted(value: str) -> str:
    """Return what a stranger sent in a form that is safe to show: printable, short, quoted."""
    shown = "".join(c if c.isascii() and c.isprintable() else "?" for c in value[:100])
    return f'"{shown}"'
