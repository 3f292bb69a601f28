"""The directory of each sandbox: its home, and files made for it.

Beneath the runtime's own directory, each session has ``<id>/root/home/user`` (file streams take
``root`` for the root), and ``<id>/etc``.  With ``<id>/keep`` the home outlives its session; whatever
else is found at the next start is removed.  Everything here blocks.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from runtimes.base import SandboxError
from runtimes.bubblewrap.command import GID, HOME, UID, USER
from runtimes.files.beneath import Place as FilePlace
from runtimes.files.removal import remove_tree

_log = structlog.get_logger()

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_KEEP = "keep"
_PRIVATE = 0o700


@dataclass(frozen=True, slots=True)
class Place:
    """The directory of one sandbox."""

    directory: Path

    @property
    def root(self) -> Path:
        """What file streams take for the root: nothing but the home is in it."""
        return self.directory / "root"

    @property
    def home(self) -> Path:
        """What is seen inside as the home."""
        return self.root / HOME[1:]

    @property
    def etc(self) -> Mapping[str, Path]:
        """Files that are put in ``/etc``, by their name there."""
        return {name: self.directory / "etc" / name for name in ("passwd", "group", "hosts")}


class Places:
    """The directories beneath `directory`, which belongs to one server alone."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def make(self, session_id: str, *, keep: bool) -> Place:
        """Make the directory of a session, or find the one that was kept.

        Raises:
          SandboxError: it cannot be made, and why.
        """
        place = self._place(session_id)
        try:
            place.home.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
            (place.directory / "etc").mkdir(exist_ok=True)
            for name, content in _ETC.items():
                place.etc[name].write_text(content)
            place.directory.chmod(_PRIVATE)
            if keep:
                (place.directory / _KEEP).touch()
        except OSError as error:
            raise SandboxError(
                f"no directory can be made for the sandbox: {error.filename}: {error.strerror}"
            ) from error
        return place

    def leave(self, place: Place) -> None:
        """Remove the directory of a session that has ended, unless its home is kept."""
        if not (place.directory / _KEEP).exists():
            remove(place.directory)

    def remove_kept(self, session_id: str) -> None:
        """Remove the directory of a session, though its home was kept.

        Raises:
          SandboxError: it cannot be removed.
        """
        directory = self._place(session_id).directory
        remove(directory)
        if directory.exists():
            raise SandboxError(f"the home in {directory} could not be removed; the log says why")

    def _place(self, session_id: str) -> Place:
        if _ID.fullmatch(session_id) is None:
            raise SandboxError(f"{session_id!r} cannot be the name of a sandbox")
        return Place(self._directory / session_id)

    def remove_leftovers(self) -> int:
        """Remove what sessions of an earlier life of the server have left; return how many."""
        count = 0
        if self._directory.is_dir():
            for directory in self._directory.iterdir():
                if not (directory / _KEEP).exists():
                    remove(directory)
                    count += 1
        return count


_ETC: Mapping[str, str] = {
    "passwd": (
        f"{USER}:x:{UID}:{GID}::{HOME}:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
    ),
    "group": f"{USER}:x:{GID}:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost ip6-localhost ip6-loopback\n",
}


def remove(directory: Path) -> None:
    """Remove a directory with whatever somebody hostile has put in it; log what cannot be."""
    try:
        parent = os.open(directory.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        with FilePlace(parent, directory.name) as place:
            try:
                remove_tree(place, lambda: False)
            except PermissionError:
                _allow_removal(directory)
                remove_tree(place, lambda: False)
    except FileNotFoundError:
        return
    except OSError as error:
        _log.warning("directory_not_removed", directory=str(directory), error=error.strerror)


def _allow_removal(directory: Path) -> None:
    """Make every directory writable again; links are not followed."""
    directory.chmod(_PRIVATE)
    for _, names, _, fd in os.fwalk(directory):
        for name in names:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                os.chmod(name, _PRIVATE, dir_fd=fd)
