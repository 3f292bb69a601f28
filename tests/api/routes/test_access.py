from __future__ import annotations

from typing import Any

import pytest

from tests.testing.api_world import CREDENTIAL, World, problem


async def test_login_and_whoami(world: World) -> None:
    code = world.authenticator.issue_login_code(
        world.authenticator.authenticate(f"Bearer {CREDENTIAL}")
    )
    response = await world.call("POST", "/v1/login", bearer=None, json={"code": code})
    assert response.status_code == 200
    answer = await response.get_json()
    assert set(answer) == {"token", "expires_at"}
    assert answer["expires_at"] == "2026-01-01T12:00:00Z"
    who = await world.call("GET", "/v1/whoami", bearer=answer["token"])
    assert await who.get_json() == {"subject": "owner"}
    again = await world.call("POST", "/v1/login", bearer=None, json={"code": code})
    await problem(again, 401, "unauthenticated")
    assert again.headers["WWW-Authenticate"].startswith("Bearer")


async def test_login_codes_are_made_by_credentials_only(world: World) -> None:
    made = await world.call("POST", "/v1/login-codes")
    assert made.status_code == 201
    code = (await made.get_json())["code"]
    response = await world.call("POST", "/v1/login", bearer=None, json={"code": code})
    token = (await response.get_json())["token"]
    # Otherwise a stolen console token would prolong itself for ever.
    await problem(await world.call("POST", "/v1/login-codes", bearer=token), 403, "forbidden")


@pytest.mark.parametrize("body", [{}, {"code": 1}, {"code": ""}, {"code": "x" * 513}])
async def test_bad_login_bodies(world: World, body: dict[str, Any]) -> None:
    response = await world.call("POST", "/v1/login", bearer=None, json=body)
    await problem(response, 400, "invalid-field", "code")
