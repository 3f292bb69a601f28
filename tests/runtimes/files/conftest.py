# ruff: noqa: ASYNC240 - these tests speak to the file system as directly as what they test

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from runtimes.files import SessionFiles, open_session_files
from runtimes.files.beneath import best_resolver, walk
from tests.testing.processes import descriptors

WAYS: dict[str, dict[str, Any]] = {
    "best": {"resolver": best_resolver(), "unnamed": True},
    "fallback": {"resolver": walk, "unnamed": False},
}
"""With all that the kernel and the file system can do, and without."""


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """The root, with nothing but a home."""
    (tmp_path / "root" / "home").mkdir(parents=True)
    return tmp_path / "root"


@pytest.fixture
def home(top: Path) -> Path:
    return top / "home"


@pytest.fixture(params=WAYS)
async def files(request: pytest.FixtureRequest, top: Path) -> AsyncIterator[SessionFiles]:
    """At the end no operation is under way, and no descriptor and no hidden file is left."""
    before = descriptors()
    limiter = trio.CapacityLimiter(4)
    async with open_session_files(str(top), "/home", limiter, **WAYS[request.param]) as opened:
        yield opened
    assert opened.open_count == 0
    assert descriptors() == before
    assert [str(p) for p in top.rglob(".trunkline-*")] == []
