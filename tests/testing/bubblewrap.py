"""Whether sandboxes of bubblewrap work where the tests run."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import pytest
import trio

from runtimes.base import SandboxError
from runtimes.bubblewrap import BubblewrapRuntime


@cache
def why_not() -> str | None:
    """Return what keeps bubblewrap from working here, or None."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            trio.run(BubblewrapRuntime(Path(directory)).check)
        except SandboxError as error:
            return str(error)
    return None


def require_bubblewrap() -> None:
    """Skip the test that calls this where bubblewrap does not work."""
    if (reason := why_not()) is not None:
        pytest.skip(f"bubblewrap does not work here: {reason}")
