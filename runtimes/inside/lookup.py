"""What a command or a directory means where the processes run; what is wrong with it, in words."""

from __future__ import annotations

import os


class Unusable(Exception):
    """It cannot be run or entered; the message says why and is shown to the user."""


def find_directory(wanted: str | None, home: str) -> str:
    """Return `wanted` as an absolute path; relative ones start at `home`, None means `home`.

    Raises:
      Unusable: it isn't a directory that can be entered.
    """
    if wanted is None:
        return home
    if "\0" in wanted:
        raise Unusable("the directory contains a NUL character")
    path = os.path.join(home, wanted)  # noqa: PTH118 - keeps what the user wrote: `..`, links
    if not os.path.exists(path):  # noqa: PTH110
        raise Unusable(f"the directory {path} does not exist")
    if not os.path.isdir(path):  # noqa: PTH112
        raise Unusable(f"{path} is not a directory")
    if not os.access(path, os.X_OK):
        raise Unusable(f"the directory {path} may not be entered: permission denied")
    return path


def find_command(name: str, path: str, directory: str) -> str:
    """Return the executable that a shell in `directory` with PATH `path` would run for `name`.

    Raises:
      Unusable: there is none.
    """
    if not name:
        raise Unusable("the command is empty: its first element names what to run")
    places = [""] if "/" in name else path.split(":")
    denied = None
    for place in places:
        candidate = os.path.join(directory, place, name)  # noqa: PTH118 - as execvp joins them
        if os.path.isfile(candidate):  # noqa: PTH113
            if os.access(candidate, os.X_OK):
                return candidate
            denied = denied or candidate
    if denied:
        raise Unusable(f"{denied} is not executable: permission denied")
    if "/" in name:
        raise Unusable(f"{name}: no such file, seen from {directory}")
    raise Unusable(f"{name}: command not found in PATH ({path})")
