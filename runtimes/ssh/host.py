"""Where an SSH server is, and how it and we prove who we are.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

DEFAULT_PORT = 22


@dataclass(frozen=True, slots=True)
class SshHost:
    """An account on an SSH server.

    `known_hosts` is the path of a file in the format of sshd(8); what is not in it is not trusted.
    `keys` are paths of private keys, `certificates` of the certificates that belong to them, and
    `agent` of the socket of an agent (ssh-agent(1)); at least one key or an agent is needed.
    `passphrase` opens the keys.  A connection that does not answer for `keepalive` seconds is asked,
    and given up after `patience` questions in vain.
    """

    address: str
    username: str
    known_hosts: str
    port: int = DEFAULT_PORT
    keys: tuple[str, ...] = ()
    certificates: tuple[str, ...] = ()
    agent: str | None = None
    passphrase: str | None = None
    keepalive: float = 15.0
    patience: int = 3

    def __post_init__(self) -> None:
        if not self.address or any(c.isspace() or c in "/@\0" for c in self.address):
            raise ValueError(f"{self.address!r} is no address of an SSH server")
        if not self.username or "\0" in self.username:
            raise ValueError(f"{self.username!r} is no name of an account")
        if not 1 <= self.port <= 0xFFFF:
            raise ValueError(f"port {self.port}: must be in 1..65535")
        if not self.known_hosts:
            raise ValueError(
                "an SSH host needs known_hosts, the path of a file with the keys that it may show;"
                " make one with: ssh-keyscan HOST >known_hosts, and compare the fingerprints"
            )
        if not (self.keys or self.agent):
            raise ValueError(
                "an SSH host needs a key or an agent to log in with: set keys or agent"
            )
        if self.keepalive <= 0 or self.patience < 1:
            raise ValueError("keepalive must be positive, and patience at least 1")

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        known_hosts: str,
        keys: tuple[str, ...] = (),
        certificates: tuple[str, ...] = (),
        agent: str | None = None,
        passphrase: str | None = None,
    ) -> SshHost:
        """Read ``ssh://user@host:port``; the port defaults to 22.

        Raises:
          ValueError: it is none, or one of the options is not possible.
        """
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"the SSH host {text!r} is no address: {error}") from error
        plain = parts.path in {"", "/"} and not parts.query and not parts.fragment
        named = parts.scheme == "ssh" and parts.hostname and parts.username and not parts.password
        if not named or not plain:
            raise ValueError(f"the SSH host {text!r} must look like ssh://user@host:22")
        return cls(
            address=parts.hostname or "",
            username=parts.username or "",
            port=DEFAULT_PORT if port is None else port,
            known_hosts=known_hosts,
            keys=keys,
            certificates=certificates,
            agent=agent,
            passphrase=passphrase,
        )

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.username}@{host}:{self.port}"
