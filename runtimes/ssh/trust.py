"""What is said about a server that is not known.  Pure."""

from __future__ import annotations

from runtimes.ssh.host import DEFAULT_PORT, SshHost


def untrusted(host: SshHost, shown: str, key: str, *, has_another: bool) -> str:
    """Say which key a server has shown, and how to come to trust it.

    `shown` is its algorithm and fingerprint, `key` the key itself as in known_hosts, which
    `has_another` for this server, or none.
    """
    standard = host.port == DEFAULT_PORT
    line = f"{host.address if standard else f'[{host.address}]:{host.port}'} {key}"
    if has_another:
        return (
            f"the SSH server at {host} shows another key than the one in {host.known_hosts}: {shown};"
            " somebody may be in between.  If the server has a new key, and this is its fingerprint,"
            f" replace its line in {host.known_hosts} with: {line}"
        )
    return (
        f"the key of the SSH server at {host} is not in {host.known_hosts}: {shown}; compare the"
        " fingerprint with what the server's administrator says (there: ssh-keygen -lf on its"
        f" /etc/ssh/*.pub), then add this line to {host.known_hosts}: {line}"
    )
