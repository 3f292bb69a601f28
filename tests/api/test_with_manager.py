"""The API on the real session manager: what the one promises and the other keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import trio
import trio.testing

from relay.protocol.reasons import CloseReason
from runtimes.base import SandboxError
from sessions.manager import open_manager
from sessions.profiles import Profile
from tests.testing.api_world import START, World, problem
from tests.testing.fake_host import FakeHost, Faults
from tests.testing.memory_store import MemoryStore

PROFILE = Profile("default", max_ttl_seconds=7200, default_ttl_seconds=3600, max_sessions=2)


@asynccontextmanager
async def world_on(host: FakeHost, static_root: Path) -> AsyncIterator[World]:
    begin = trio.current_time()

    def clock() -> Any:
        return START + timedelta(seconds=trio.current_time() - begin)

    async with open_manager(host, MemoryStore(), {"default": PROFILE}, clock=clock) as manager:
        yield World(static_root, real=manager)


async def test_a_session_from_its_start_to_the_end_of_its_record(
    static_root: Path, autojump_clock: trio.testing.MockClock
) -> None:
    host = FakeHost()
    async with world_on(host, static_root) as world:
        created = await world.create(ttl_seconds=0, placement_hint="nowhere", image_ref="img")
        assert "hint-not-matched" in created["placement"]["reasons"]
        path = f"/v1/sessions/{created['session_id']}"
        shown = await (await world.call("GET", path)).get_json()
        assert (shown["status"], shown["expires_at"]) == ("running", "2026-01-01T01:00:00Z")
        assert (shown["runtime"], shown["isolated"], shown["image_ref"]) == ("fake", True, "img")
        assert (await world.call("DELETE", f"{path}/attach")).status_code == 200
        assert host.hosted[0].epochs == [1]
        for _ in range(2):
            response = await world.call("DELETE", path)
            assert await response.get_json() == {"terminated": True}
        assert host.hosted[0].ends == [CloseReason.SESSION_ENDED]
        assert host.hosted[0].closed
        await problem(await world.call("POST", f"{path}/attach"), 409, "session-not-running")
        assert (await world.call("DELETE", f"{path}/attach")).status_code == 200
        assert (await (await world.call("GET", path)).get_json())["status"] == "terminated"
        await trio.sleep(23 * 3600)
        assert (await world.call("GET", path)).status_code == 200
        await trio.sleep(2 * 3600)
        await problem(await world.call("GET", path), 404, "session-not-found")
        await problem(await world.call("DELETE", path), 404, "session-not-found")


async def test_expiry(static_root: Path, autojump_clock: trio.testing.MockClock) -> None:
    async with world_on(FakeHost(), static_root) as world:
        session_id = (await world.create(ttl_seconds=5))["session_id"]
        await trio.sleep(10)
        body = await (await world.call("GET", f"/v1/sessions/{session_id}")).get_json()
        assert (body["status"], body["state"]) == ("terminated", "expired")


async def test_refusals(static_root: Path, autojump_clock: trio.testing.MockClock) -> None:
    host = FakeHost(Faults(open_error=SandboxError("there is no shell")))
    async with world_on(host, static_root) as world:

        async def create(**fields: Any) -> Any:
            body = {"profile": "default", "ttl_seconds": 60, **fields}
            return await world.call("POST", "/v1/sessions", json=body)

        body = await problem(await create(), 503, "session-failed")
        assert "there is no shell" in body["detail"].lower()
        await problem(await create(profile="other"), 400, "invalid-field", "profile")
        await problem(await create(ttl_seconds=7201), 403, "policy-denied")
        await problem(await create(ttl_seconds=10**40), 403, "policy-denied")
        for _ in range(2):
            assert (await create()).status_code == 201
        await problem(await create(), 403, "policy-denied")
        listed = await (await world.call("GET", "/v1/sessions")).get_json()
        assert [item["state"] for item in listed["sessions"]].count("running") == 2


async def test_a_client_that_leaves_while_its_session_starts(
    static_root: Path, autojump_clock: trio.testing.MockClock
) -> None:
    host = FakeHost(Faults(open_delay=20))
    async with world_on(host, static_root) as world:
        with trio.move_on_after(1):
            await world.create()
        await trio.sleep(60)
        assert (host.opening, host.open) == (0, 0)


async def test_stopping_and_starting(
    static_root: Path, autojump_clock: trio.testing.MockClock
) -> None:
    host = FakeHost(Faults(), Faults(), Faults(open_error=SandboxError("no room")))
    async with open_manager(
        host,
        MemoryStore(),
        {"default": PROFILE, "kept": replace(PROFILE, name="kept", keep_home=True)},
    ) as manager:
        world = World(static_root, real=manager)
        wiping = (await world.create())["session_id"]
        body = await problem(
            await world.call("POST", f"/v1/sessions/{wiping}/stop"), 409, "home-not-kept"
        )
        assert "set keep_home = true in [profiles.default]" in body["detail"]
        await world.call("DELETE", f"/v1/sessions/{wiping}")
        path = f"/v1/sessions/{(await world.create(profile='kept'))['session_id']}"
        for _ in range(2):
            response = await world.call("POST", f"{path}/stop")
            assert response.status_code == 200
            body = await response.get_json()
            assert (body["status"], body["state"]) == ("pending", "stopped")
        body = await problem(await world.call("POST", f"{path}/attach"), 409, "session-not-running")
        assert "stopped: POST /v1/sessions/{id}/start starts it again" in body["detail"]
        body = await problem(await world.call("POST", f"{path}/start"), 503, "session-failed")
        assert body["detail"].startswith("No room.")
        for _ in range(2):
            response = await world.call("POST", f"{path}/start")
            assert response.status_code == 200
            assert (await response.get_json())["state"] == "running"
