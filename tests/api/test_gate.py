from __future__ import annotations

import re

import pytest

from api.gate import PUBLIC_ENDPOINTS
from tests.testing.api_world import CREDENTIAL, World, problem

UUID = "550e8400-e29b-41d4-a716-446655440000"


async def test_every_route_but_the_listed_ones_needs_a_credential(world: World) -> None:
    closed = set()
    for rule in world.app.url_map.iter_rules():
        path = re.sub(r"<[^>]+>", UUID, rule.rule)
        assert rule.methods is not None
        assert not getattr(rule, "websocket", False)
        for method in rule.methods:
            response = await world.call(method, path, bearer=None)
            if rule.endpoint in PUBLIC_ENDPOINTS:
                assert "No credential" not in await response.get_data(as_text=True)
            else:
                assert response.status_code == 401, (method, path)
                assert response.headers["WWW-Authenticate"] == "Bearer"
                closed.add(rule.endpoint)
    assert closed == set(world.app.view_functions) - PUBLIC_ENDPOINTS


async def test_the_list_names_endpoints_that_exist(world: World) -> None:
    assert set(world.app.view_functions) >= PUBLIC_ENDPOINTS


async def test_an_endpoint_added_later_is_closed(world: World) -> None:
    @world.app.get("/later")
    async def later() -> str:
        return "reached"

    await problem(await world.call("GET", "/later", bearer=None), 401, "unauthenticated")
    assert await (await world.call("GET", "/later")).get_data(as_text=True) == "reached"


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", f"Basic {CREDENTIAL}", CREDENTIAL, "Bearer a b", "Bearer é"]
)
async def test_bad_credentials(world: World, value: str) -> None:
    response = await world.call("GET", "/v1/whoami", bearer=None, headers={"Authorization": value})
    body = await problem(response, 401, "unauthenticated")
    assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert CREDENTIAL not in body["detail"]


async def test_no_credential(world: World) -> None:
    response = await world.call("GET", "/v1/whoami", bearer=None)
    await problem(response, 401, "unauthenticated")
    assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_a_body_is_not_read_before_the_credential(world: World) -> None:
    response = await world.call(
        "POST", "/v1/sessions", bearer=None, data=b"{" * 10, headers={"Content-Type": "x/y"}
    )
    await problem(response, 401, "unauthenticated")
