"""The bearer credential that is made at first start, and the file that keeps it."""

from __future__ import annotations

import base64
import re
import secrets
from pathlib import Path

from auth.clock import Entropy
from auth.private_files import PrivateFileError, create_private_file, read_private_file

PREFIX = "trunk_"
"""So that a credential that leaked is recognised, by people and by secret scanners."""

_SECRET_BYTES = 32
_MAX_FILE_BYTES = 1024
_PATTERN = re.compile(PREFIX + r"[A-Za-z0-9_-]{43}")


def new_credential(entropy: Entropy = secrets.token_bytes) -> str:
    """Return a fresh credential: `PREFIX` and 32 unpredictable bytes in base64url."""
    secret = base64.urlsafe_b64encode(entropy(_SECRET_BYTES)).rstrip(b"=")
    return PREFIX + secret.decode("ascii")


def read_credential(path: Path) -> str:
    """Return the credential kept in `path`.  Blocks on the disk.

    Raises:
      FileNotFoundError: there is none.
      PrivateFileError: others can read it, or what is in it is no credential.
    """
    text = read_private_file(path, max_bytes=_MAX_FILE_BYTES).decode("ascii", "replace").strip()
    if _PATTERN.fullmatch(text) is None:
        raise PrivateFileError(
            f"{path} holds no credential ('{PREFIX}' and 43 characters): delete it, and a new one "
            "is made at the start"
        )
    return text


def load_or_create_credential(path: Path, *, entropy: Entropy = secrets.token_bytes) -> str:
    """Return the credential kept in `path`, after making it (mode 0600) if there is none.

    The directory must exist.  Blocks on the disk.

    Raises:
      PrivateFileError: others can read the file, what is in it is no credential, or it cannot be
        written.
    """
    try:
        return read_credential(path)
    except FileNotFoundError:
        pass
    credential = new_credential(entropy)
    try:
        create_private_file(path, credential.encode("ascii") + b"\n")
    except FileExistsError:
        # Another start was faster: its credential is the one.
        return read_credential(path)
    return credential
