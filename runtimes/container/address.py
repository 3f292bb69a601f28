"""Where a container engine listens."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

DEFAULT_ADDRESS = "unix:///var/run/docker.sock"
_DEFAULT_PORTS = {False: 2375, True: 2376}


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """A Unix socket (`path`), or a host and port, with TLS when there is an `ssl_context`."""

    path: str | None = None
    host: str = ""
    port: int = 0
    ssl_context: ssl.SSLContext | None = None

    @classmethod
    def parse(cls, text: str, ssl_context: ssl.SSLContext | None = None) -> EngineAddress:
        """Read ``unix:///path``, ``tcp://host:port`` or ``https://host:port``.

        `ssl_context` holds the client's certificate and the authorities it trusts; with it ``tcp``
        means TLS too.  The port defaults to 2375, with TLS to 2376.

        Raises:
          ValueError: it is none of these.
        """
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"the engine's address {text!r} is no address: {error}") from error
        if parts.scheme == "unix" and parts.path.startswith("/") and not parts.netloc:
            return cls(path=parts.path)
        plain = parts.path in {"", "/"} and not parts.query and not parts.fragment
        if parts.scheme in {"tcp", "https"} and parts.hostname and plain and not parts.username:
            if parts.scheme == "https" and ssl_context is None:
                ssl_context = ssl.create_default_context()
            port = port or _DEFAULT_PORTS[ssl_context is not None]
            return cls(host=parts.hostname, port=port, ssl_context=ssl_context)
        raise ValueError(
            f"the engine's address {text!r} must look like unix:///var/run/docker.sock"
            " or tcp://host:2376"
        )

    @property
    def base_url(self) -> str:
        """What requests are relative to."""
        if self.path is not None:
            return "http://localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.ssl_context else 'http'}://{host}:{self.port}"

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.path is not None else self.base_url
