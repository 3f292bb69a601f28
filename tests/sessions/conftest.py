from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import structlog

from auth.principal import Principal
from sessions.manager import Manager, open_manager
from sessions.profiles import Profile, profiles_from_mapping
from tests.testing.fake_host import FakeHost
from tests.testing.memory_store import MemoryStore
from tests.testing.wall_clock import WallClock


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    """What is logged, as data: rendering tracebacks takes its time."""
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture
def clock() -> WallClock:
    return WallClock()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def profiles() -> dict[str, Profile]:
    return profiles_from_mapping(
        {
            "small": {"max_ttl_seconds": 100, "default_ttl_seconds": 50, "max_sessions": 3},
            "staff": {
                "allowed_groups": ["staff"],
                "command": ["zsh"],
                "environment": {"A": "B"},
                "directory": "/work",
            },
            "unused": {"idle_timeout_seconds": 60, "runtime": "other", "network": "none"},
        }
    )


@pytest.fixture
def me() -> Principal:
    return Principal("me")


@pytest.fixture
def manage(
    store: MemoryStore, profiles: dict[str, Profile], clock: WallClock
) -> Callable[..., AbstractAsyncContextManager[Manager]]:
    """Open a manager over the store in memory; afterwards nothing may be left on the host.

    A test that uses it takes `autojump_clock` too: a clock counts only where the test asks for it.
    """

    @asynccontextmanager
    async def opened(host: FakeHost, **options: Any) -> AsyncIterator[Manager]:
        async with open_manager(host, store, profiles, clock=clock, **options) as manager:
            yield manager
        assert not manager.statistics().live
        assert (host.opening, host.open) == (0, 0)
        assert all(hosted.closed for hosted in host.hosted)

    return opened
