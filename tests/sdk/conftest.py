from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.testing.served import Served, served
from trunkline.sdk.client import Session


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep this user's own server out of it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("TRUNKLINE_URL", raising=False)
    monkeypatch.delenv("TRUNKLINE_TOKEN", raising=False)
    return tmp_path / "state"


@pytest.fixture
async def world(own_state: Path, tmp_path: Path) -> AsyncIterator[Served]:
    """A server in this process, and a client of it."""
    async with served(tmp_path / "data") as running:
        yield running


@pytest.fixture
async def session(world: Served) -> Session:
    """A session on it."""
    return await world.client.create_session()
