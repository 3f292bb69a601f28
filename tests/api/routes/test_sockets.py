from __future__ import annotations

import pytest

from relay.endpoint import Kind
from relay.socket_rules import SocketRules
from sessions.profiles import Profile
from tests.testing.api_world import World, problem

UNKNOWN = "550e8400-e29b-41d4-a716-446655440000"


@pytest.mark.parametrize("path", ["tcp/8080", "vnc", "vnc?port=5901"])
async def test_the_paths_ask_for_a_websocket(world: World, path: str) -> None:
    response = await world.call("GET", f"/v1/sessions/{UNKNOWN}/{path}", bearer=None)
    body = await problem(response, 426, "upgrade-required")
    assert f'"{path[:3]}"' in body["detail"]
    assert response.headers["Upgrade"] == "websocket"


async def test_a_ticket_covers_the_ports_of_the_profile(world: World) -> None:
    rules = SocketRules.parse([8080, "3000-3999"])
    world.manager.profiles["default"] = Profile("default", ports=rules)
    created = await world.create()
    session_id = created["session_id"]
    grant = world.tickets.inspect(created["attach"]["token"])
    assert (grant.kinds, grant.ports) == (frozenset({Kind.PTY, Kind.EXEC}), rules)
    path = f"/v1/sessions/{session_id}/attach"
    answer = await world.call("POST", path, json={"kinds": ["tcp"]})
    grant = world.tickets.inspect((await answer.get_json())["token"])
    assert (grant.kinds, grant.ports) == (frozenset({Kind.TCP}), rules)
    answer = await world.call("POST", path, json={"kinds": ["tcp"], "ports": ["3000-3010"]})
    grant = world.tickets.inspect((await answer.get_json())["token"])
    assert grant.ports == SocketRules.parse(["3000-3010"])


@pytest.mark.parametrize("ports", [[22], [8080, 8081], ["2999-3001"], ["/run/docker.sock"]])
async def test_a_ticket_covers_no_more_than_the_profile(world: World, ports: list[object]) -> None:
    world.manager.profiles["default"] = Profile(
        "default", ports=SocketRules.parse([8080, "3000-3999"])
    )
    session_id = (await world.create())["session_id"]
    wish = {"kinds": ["tcp"], "ports": ports}
    response = await world.call("POST", f"/v1/sessions/{session_id}/attach", json=wish)
    body = await problem(response, 403, "forbidden", "ports")
    assert "3000-3999, 8080" in body["detail"]


async def test_a_profile_that_says_nothing_allows_every_port(world: World) -> None:
    session_id = (await world.create())["session_id"]
    path = f"/v1/sessions/{session_id}/attach"
    answer = await world.call("POST", path, json={"kinds": ["vnc", "tcp"]})
    assert world.tickets.inspect((await answer.get_json())["token"]).ports is None
