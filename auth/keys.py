"""The keys that sign tickets and console tokens.

Each key is a file ``<kid>.json`` (mode 0600) in a directory of its own (mode 0700).  A key fixes
its algorithm: what a token says about its algorithm is never believed.  The newest key signs; all
of them verify, so that a key can be replaced while tokens of the old one are still out.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from auth.clock import Clock, Entropy, system_clock
from auth.private_files import (
    PrivateFileError,
    create_private_file,
    ensure_private_directory,
    read_private_file,
)

SECRET_BYTES: Mapping[str, int] = MappingProxyType({"HS256": 32})
"""The algorithms we sign with, and how many bytes a key of each has: no more, no less."""

_MAX_KEYS = 64
_MAX_FILE_BYTES = 4096
_KID = re.compile(r"[0-9a-f]{16}")


class KeyringError(Exception):
    """The signing keys cannot be used; the message names the file and says what to do."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key.  `secret` both signs and verifies (HS256) and never shows up in a `repr`."""

    kid: str
    algorithm: str
    created_at: datetime
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not _KID.fullmatch(self.kid):
            raise ValueError("a key id is 16 hexadecimal digits")
        if self.algorithm not in SECRET_BYTES:
            raise ValueError(f"{self.algorithm!r} is not an algorithm this version signs with")
        if len(self.secret) != SECRET_BYTES[self.algorithm]:
            raise ValueError(
                f"an {self.algorithm} key has {SECRET_BYTES[self.algorithm]} bytes, "
                f"not {len(self.secret)}"
            )
        if self.created_at.tzinfo is None:
            raise ValueError("the time of creation has no zone")


class Keyring:
    """Signing keys by id.  `Keyring.open` reads or makes those of a data directory."""

    def __init__(self, keys: Iterable[SigningKey]) -> None:
        self._keys = {key.kid: key for key in keys}
        if not self._keys:
            raise ValueError("a keyring has at least one key")
        self._newest = max(self._keys.values(), key=lambda key: (key.created_at, key.kid))

    @classmethod
    def open(
        cls, directory: Path, *, clock: Clock = system_clock, entropy: Entropy = secrets.token_bytes
    ) -> Keyring:
        """Read the keys in `directory`; make the directory and a first key where there is none.

        Blocks on the disk.

        Raises:
          KeyringError: a file cannot be read or written, others can read it, or it is no key.
        """
        try:
            ensure_private_directory(directory)
            paths = sorted(directory.glob("*.json"))
            if len(paths) > _MAX_KEYS:
                raise KeyringError(f"{directory} has more than {_MAX_KEYS} keys: delete old ones")
            keys = [_read(path) for path in paths]
            if not keys:
                key = generate_key(clock=clock, entropy=entropy)
                create_private_file(directory / f"{key.kid}.json", _encode(key))
                keys = [key]
        except (PrivateFileError, OSError) as exc:
            raise KeyringError(str(exc)) from exc
        return cls(keys)

    @property
    def signing_key(self) -> SigningKey:
        """The key that new tokens are signed with."""
        return self._newest

    def verification_key(self, kid: str) -> SigningKey | None:
        """Return the key `kid`, or None."""
        return self._keys.get(kid)

    def __len__(self) -> int:
        return len(self._keys)


def generate_key(
    *, clock: Clock = system_clock, entropy: Entropy = secrets.token_bytes
) -> SigningKey:
    """Return a fresh HS256 key."""
    return SigningKey(
        kid=entropy(8).hex(),
        algorithm="HS256",
        created_at=clock(),
        secret=entropy(SECRET_BYTES["HS256"]),
    )


def _encode(key: SigningKey) -> bytes:
    document = {
        "kid": key.kid,
        "algorithm": key.algorithm,
        "created_at": key.created_at.isoformat(),
        "secret": base64.urlsafe_b64encode(key.secret).decode("ascii"),
    }
    return json.dumps(document, indent=1).encode("ascii") + b"\n"


def _read(path: Path) -> SigningKey:
    data = read_private_file(path, max_bytes=_MAX_FILE_BYTES)
    try:
        key = _decode(json.loads(data))
    except (ValueError, TypeError, KeyError, RecursionError, binascii.Error) as exc:
        # The cause is not chained: its traceback could show a piece of the secret.
        problem = str(exc) if isinstance(exc, ValueError) else "it lacks what a key has"
        if isinstance(exc, json.JSONDecodeError | UnicodeDecodeError | binascii.Error):
            problem = "it is damaged"
        raise KeyringError(
            f"{path} is not a signing key of this version ({problem}): delete it; the tickets and "
            "console tokens it signed are then refused"
        ) from None
    if path.stem != key.kid:
        raise KeyringError(f"{path} holds the key {key.kid}: rename or delete it")
    return key


def _decode(document: dict[str, Any]) -> SigningKey:
    return SigningKey(
        kid=document["kid"],
        algorithm=document["algorithm"],
        created_at=datetime.fromisoformat(document["created_at"]),
        secret=base64.b64decode(document["secret"], altchars=b"-_", validate=True),
    )
