"""How a client finds the server and its credential.

``TRUNKLINE_URL`` and ``TRUNKLINE_TOKEN`` count first.  Otherwise there is a file that `serve` leaves
for programs of the same user, readable by nobody else.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from trunkline.sdk.errors import ServerNotFound

URL_VARIABLE = "TRUNKLINE_URL"
TOKEN_VARIABLE = "TRUNKLINE_TOKEN"  # noqa: S105 - the name of a variable, not a secret


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server is, and what it knows us by."""

    url: str
    token: str = field(repr=False)


def server_file() -> Path:
    """Return where `serve` leaves a note for the programs of this user."""
    state = os.environ.get("XDG_STATE_HOME") or ""
    base = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
    return base / "trunkline" / "server.json"


def find_server(url: str | None = None, token: str | None = None) -> Server:
    """Return the server to talk to.

    What is given counts before the environment, and that before the file.

    Raises:
      ServerNotFound: nothing tells where the server is, or the credential for it; or what does is
        not a URL, or no credential.
    """
    url = url or os.environ.get(URL_VARIABLE)
    token = token or os.environ.get(TOKEN_VARIABLE)
    if url:
        _check_url(url)
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise ServerNotFound(f"that is no credential: check {TOKEN_VARIABLE}")
    if url and token:
        return Server(url.rstrip("/"), token)
    noted = _read(server_file())
    if noted is None:
        missing = TOKEN_VARIABLE if url else URL_VARIABLE
        raise ServerNotFound(
            f"no server found: start one with 'trunkline serve', or set {missing}"
            f"{'' if url else ' and ' + TOKEN_VARIABLE} to reach one elsewhere"
        )
    if url and url.rstrip("/") != noted.url:
        # The credential of one server is never shown to another.
        raise ServerNotFound(f"no credential for {url}: set {TOKEN_VARIABLE}")
    return Server(noted.url, token or noted.token)


def _check_url(url: str) -> None:
    if not _is_address(url):
        raise ServerNotFound(
            f"{url!r} is not the address of a server; write it as http://host:port (in"
            f" {URL_VARIABLE})"
        )


def _is_address(url: str) -> bool:
    if not url.isascii() or not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and parts.port != 0
            and not parts.query
            and not parts.fragment
        )
    except ValueError:  # a bracket without its other half, a port that is no number
        return False


def _read(path: Path) -> Server | None:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
                raise ServerNotFound(
                    f"{path} is readable or owned by others, so it is not trusted: delete it and "
                    "start the server again"
                )
            note = msgspec.json.decode(file.read(65536))
            return Server(str(note["url"]), str(note["token"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ServerNotFound(f"{path} cannot be read: {error}") from error


def leave_note(url: str, token: str) -> Path:
    """Write the file that `find_server` reads; the server does this when it is ready."""
    path = server_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode({"url": url, "token": token, "pid": os.getpid()}))
    temporary.replace(path)
    return path


def remove_note() -> None:
    """Take the file away, if it is still this process's."""
    path = server_file()
    try:
        note = msgspec.json.decode(path.read_bytes())
        if isinstance(note, dict) and note.get("pid") == os.getpid():
            path.unlink()
    except (OSError, ValueError):
        return  # somebody else's by now, or gone: nothing of ours is left
