from __future__ import annotations

from tests.testing.api_world import World


async def test_healthz(world: World) -> None:
    response = await world.call("GET", "/healthz", bearer=None)
    assert response.status_code == 200
    assert await response.get_json() == {"status": "ok"}
