"""The seed's endpoints to the letter, and ours beside them."""

from __future__ import annotations

import re
import uuid
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from auth.tickets import TicketError, TicketProblem
from relay.endpoint import Kind
from relay.grant import Grant, Mode
from sessions.errors import NoCapacity, SessionFailed, ShuttingDown
from sessions.manager import CreateRequest
from sessions.state import State
from tests.testing.api_world import World, problem

UNKNOWN = "550e8400-e29b-41d4-a716-446655440000"


async def test_create_to_the_letter(world: World) -> None:
    response = await world.call(
        "POST",
        "/v1/sessions",
        json={
            "profile": "default",
            "ttl_seconds": 3600,
            "placement_hint": "eu-west-1",
            "image_ref": "ghcr.io/x/y@sha256:abc123",
            "something_new": [1, 2],
        },
        headers={"Host": "shell.example.com"},
    )
    assert response.status_code == 201
    assert response.headers["Content-Type"] == "application/json"
    body = await response.get_json()
    session_id = body["session_id"]
    assert str(uuid.UUID(session_id)) == session_id
    assert response.headers["Location"] == f"/v1/sessions/{session_id}"
    token = body["attach"]["token"]
    assert body == {
        "session_id": session_id,
        "attach": {
            "ws_url": f"ws://shell.example.com/v1/sessions/{session_id}/pty",
            "token": token,
            "expires_at": "2026-01-01T00:15:00Z",
        },
        "placement": {
            "region": "local",
            "node_id": "local",
            "tier": "fog",
            "reasons": ["fog-preferred", "healthy"],
        },
    }
    assert world.manager.requests == [
        CreateRequest("default", 3600, "eu-west-1", "ghcr.io/x/y@sha256:abc123")
    ]


async def test_the_ticket_of_a_new_session_covers_all_of_it_for_15_minutes(world: World) -> None:
    body = await world.create()
    session_id, token = body["session_id"], body["attach"]["token"]
    for minute in (0, 5, 14):
        world.now += timedelta(minutes=minute - world.now.minute)
        assert world.tickets.redeem(token, session_id=session_id, epoch=0) == Grant(
            session_id, "owner", frozenset({Kind.PTY, Kind.EXEC}), Mode.CONTROL, None, 0
        )
    world.now += timedelta(minutes=1)
    with pytest.raises(TicketError) as caught:
        world.tickets.redeem(token, session_id=session_id, epoch=0)
    assert caught.value.problem is TicketProblem.EXPIRED


async def test_show_to_the_letter(world: World) -> None:
    session_id = (await world.create(ttl_seconds=0, image_ref="img"))["session_id"]
    response = await world.call("GET", f"/v1/sessions/{session_id}")
    assert response.status_code == 200
    seed = {
        "session_id": session_id,
        "status": "running",
        "placement": {
            "region": "local",
            "node_id": "local",
            "tier": "fog",
            "reasons": ["fog-preferred", "healthy"],
        },
        "created_at": "2026-01-01T00:00:00Z",
        "expires_at": "2026-01-01T01:00:00Z",
        "image_ref": "img",
    }
    ours = {
        "state": "running",
        "reason": None,
        "ended_at": None,
        "profile": "default",
        "runtime": "fake",
        "isolated": True,
    }
    assert await response.get_json() == seed | ours


@pytest.mark.parametrize("state", State)
async def test_status_is_one_of_the_seeds_three(world: World, state: State) -> None:
    session_id = (await world.create())["session_id"]
    world.manager.records[session_id] = replace(
        world.manager.records[session_id], state=state, reason="why"
    )
    body = await (await world.call("GET", f"/v1/sessions/{session_id}")).get_json()
    words = {State.PENDING: "pending", State.RUNNING: "running", State.PAUSED: "running"}
    words |= dict.fromkeys((State.STOPPING, State.STOPPED, State.STARTING), "pending")
    expected = words.get(state, "terminated")
    assert (body["status"], body["state"], body["reason"]) == (expected, state.value, "why")


async def test_isolation_of_a_runtime_that_is_gone_is_unknown(world: World) -> None:
    session_id = (await world.create())["session_id"]
    world.manager.records[session_id] = replace(
        world.manager.records[session_id], runtime="another"
    )
    body = await (await world.call("GET", f"/v1/sessions/{session_id}")).get_json()
    assert body["isolated"] is None


async def test_terminate_twice_and_look(world: World) -> None:
    session_id = (await world.create())["session_id"]
    for _ in range(2):
        response = await world.call("DELETE", f"/v1/sessions/{session_id}")
        assert (response.status_code, await response.get_json()) == (200, {"terminated": True})
    body = await (await world.call("GET", f"/v1/sessions/{session_id}")).get_json()
    assert (body["status"], body["ended_at"]) == ("terminated", "2026-01-01T00:00:00Z")


async def test_list_shows_own_sessions_newest_first(world: World) -> None:
    first = (await world.create())["session_id"]
    second = (await world.create())["session_id"]
    other = await world.call(
        "POST", "/v1/sessions", json={"profile": "default", "ttl_seconds": 1}, bearer="bob"
    )
    assert other.status_code == 201
    body = await (await world.call("GET", "/v1/sessions")).get_json()
    assert [item["session_id"] for item in body["sessions"]] == [second, first]
    shown = await (await world.call("GET", f"/v1/sessions/{first}")).get_json()
    assert body["sessions"][1] == shown


ROUTES_OF_ONE = [
    ("GET", "/v1/sessions/{id}"),
    ("DELETE", "/v1/sessions/{id}"),
    ("POST", "/v1/sessions/{id}/attach"),
    ("DELETE", "/v1/sessions/{id}/attach"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES_OF_ONE)
async def test_unknown_foreign_and_shapeless_ids(world: World, method: str, path: str) -> None:
    await problem(await world.call(method, path.format(id=UNKNOWN)), 404, "session-not-found")
    session_id = (await world.create())["session_id"]
    foreign = await world.call(method, path.format(id=session_id), bearer="bob")
    await problem(foreign, 403, "not-owner")
    for shapeless in ("x", "%00", session_id + "0", session_id.replace("-", ""), "é" * 500):
        response = await world.call(method, path.format(id=shapeless))
        await problem(response, 404, "session-not-found")


async def test_an_id_in_capitals_is_the_same_id(world: World) -> None:
    session_id = (await world.create())["session_id"]
    response = await world.call("GET", f"/v1/sessions/{session_id.upper()}")
    assert (await response.get_json())["session_id"] == session_id


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [
        (SessionFailed("no such shell"), 503, "session-failed"),
        (NoCapacity("all 4 places are taken"), 503, "no-capacity"),
        (ShuttingDown(), 503, "shutting-down"),
    ],
)
async def test_errors_of_the_manager(
    world: World, error: Exception, status: int, name: str
) -> None:
    world.manager.error = error
    response = await world.call(
        "POST", "/v1/sessions", json={"profile": "default", "ttl_seconds": 1}
    )
    await problem(response, status, name)
    assert ("Retry-After" in response.headers) == (name != "session-failed")


async def test_unknown_profile_and_policy(world: World) -> None:
    response = await world.call("POST", "/v1/sessions", json={"profile": "huge", "ttl_seconds": 1})
    body = await problem(response, 400, "invalid-field", "profile")
    assert "'huge'" in body["detail"]
    response = await world.call(
        "POST", "/v1/sessions", json={"profile": "default", "ttl_seconds": 10**30}
    )
    body = await problem(response, 403, "policy-denied")
    assert body["detail"] == f"ttl_seconds {10**30} is more than 7200."


async def test_attach_defaults(world: World) -> None:
    session_id = (await world.create())["session_id"]
    bodies: list[dict[str, Any]] = [
        {"json": {}},
        {},
        {"data": b"", "headers": {"Content-Type": "application/json"}},
    ]
    for body in bodies:
        response = await world.call("POST", f"/v1/sessions/{session_id}/attach", **body)
        assert response.status_code == 201
        answer = await response.get_json()
        assert set(answer) == {"token", "ws_url", "expires_at"}
        assert answer["expires_at"] == "2026-01-01T00:01:00Z"
        assert answer["ws_url"] == f"ws://localhost/v1/sessions/{session_id}/pty"
        grant = world.tickets.redeem(answer["token"], session_id=session_id, epoch=0)
        assert grant == Grant(session_id, "owner", frozenset({Kind.PTY, Kind.EXEC}))
        with pytest.raises(TicketError) as caught:
            world.tickets.redeem(answer["token"], session_id=session_id, epoch=0)
        assert caught.value.problem is TicketProblem.USED


async def test_attach_with_everything_named(world: World) -> None:
    session_id = (await world.create())["session_id"]
    wish = {"kinds": ["exec"], "mode": "view", "tag": "a.b-c_1", "uses": 2, "ttl_seconds": 900}
    response = await world.call("POST", f"/v1/sessions/{session_id}/attach", json=wish)
    answer = await response.get_json()
    assert answer["expires_at"] == "2026-01-01T00:15:00Z"
    for _ in range(2):
        grant = world.tickets.redeem(answer["token"], session_id=session_id, epoch=0)
        assert grant == Grant(session_id, "owner", frozenset({Kind.EXEC}), Mode.VIEW, "a.b-c_1", 0)


async def test_attach_needs_a_running_session(world: World) -> None:
    session_id = (await world.create())["session_id"]
    await world.call("DELETE", f"/v1/sessions/{session_id}")
    response = await world.call("POST", f"/v1/sessions/{session_id}/attach", json={})
    await problem(response, 409, "session-not-running")


async def test_revoke(world: World) -> None:
    created = await world.create()
    session_id = created["session_id"]
    response = await world.call("DELETE", f"/v1/sessions/{session_id}/attach")
    assert (response.status_code, await response.get_json()) == (200, {"revoked": True})
    epoch = world.manager.records[session_id].epoch
    with pytest.raises(TicketError) as caught:
        world.tickets.redeem(created["attach"]["token"], session_id=session_id, epoch=epoch)
    assert caught.value.problem is TicketProblem.REVOKED
    response = await world.call("POST", f"/v1/sessions/{session_id}/attach", json={})
    token = (await response.get_json())["token"]
    assert world.tickets.redeem(token, session_id=session_id, epoch=epoch).epoch == epoch


async def test_the_terminals_path_asks_for_a_websocket(world: World) -> None:
    response = await world.call("GET", f"/v1/sessions/{UNKNOWN}/pty?token=abc", bearer=None)
    await problem(response, 426, "upgrade-required")
    assert response.headers["Upgrade"] == "websocket"


@pytest.mark.parametrize("host", ["a b", "evil/x", "a@b", "ü.example", "", "h:port"])
async def test_a_bad_host_starts_nothing(world: World, host: str) -> None:
    response = await world.call(
        "POST",
        "/v1/sessions",
        json={"profile": "default", "ttl_seconds": 1},
        headers={"Host": host},
    )
    await problem(response, 400, "invalid-field", "Host")
    assert world.manager.requests == []


async def test_https_and_public_url(static_root: Any) -> None:
    world = World(static_root)
    response = await world.call(
        "POST",
        "/v1/sessions",
        json={"profile": "default", "ttl_seconds": 1},
        headers={"Host": "[::1]:8443"},
        scheme="https",
    )
    url = (await response.get_json())["attach"]["ws_url"]
    assert url.startswith("wss://[::1]:8443/v1/sessions/")
    world = World(static_root, public_url="https://shell.example.com/base/")
    response = await world.call(
        "POST",
        "/v1/sessions",
        json={"profile": "default", "ttl_seconds": 1},
        headers={"Host": "ignored bad host"},
    )
    url = (await response.get_json())["attach"]["ws_url"]
    assert re.fullmatch(r"wss://shell\.example\.com/base/v1/sessions/[0-9a-f-]{36}/pty", url)
