"""The document describes the API that is there: routes, statuses, and the shape of answers."""

from __future__ import annotations

import re
from typing import Any

from quart import Response

from api.gate import PUBLIC_ENDPOINTS
from tests.testing.api_world import World

Json = dict[str, Any]


async def document(world: World) -> Json:
    response = await world.call("GET", "/openapi.json", bearer=None)
    assert response.headers["Content-Type"] == "application/json"
    body: Json = await response.get_json()
    return body


def resolve(doc: Json, schema: Json) -> Json:
    while "$ref" in schema:
        prefix, _, name = schema["$ref"].rpartition("/")
        assert prefix == "#/components/schemas"
        schema = doc["components"]["schemas"][name]
    return schema


def matches(doc: Json, schema: Json, value: Any) -> bool:
    """A JSON Schema check of the keywords that the document uses; others fail the test."""
    schema = resolve(doc, schema)
    known = {"type", "properties", "required", "title", "description", "enum", "anyOf", "items"}
    known |= {"format", "default", "minimum", "maximum", "minLength", "minItems", "pattern"}
    assert set(schema) <= known, schema
    if "anyOf" in schema:
        return any(matches(doc, option, value) for option in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    match schema["type"]:
        case "object":
            return (
                isinstance(value, dict)
                and set(schema.get("required", ())) <= set(value)
                and set(value) <= set(schema["properties"])
                and all(matches(doc, schema["properties"][key], value[key]) for key in value)
            )
        case "array":
            return isinstance(value, list) and all(matches(doc, schema["items"], i) for i in value)
        case "string":
            formats = {
                "date-time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ",
                "uuid": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
            }
            form = formats.get(schema.get("format", ""), ".*")
            return isinstance(value, str) and re.fullmatch(form, value, re.DOTALL) is not None
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case other:
            raise AssertionError(other)


async def check(doc: Json, path: str, method: str, response: Response) -> None:
    documented = doc["paths"][path][method]["responses"][str(response.status_code)]
    media_type = response.headers["Content-Type"]
    schema = documented["content"][media_type]["schema"]
    assert matches(doc, schema, await response.get_json(force=True)), (path, method)
    assert set(documented["headers"]) == {"X-Request-Id"}


async def test_the_frame(world: World) -> None:
    doc = await document(world)
    assert doc["openapi"] == "3.1.0"
    assert doc["info"]["title"] == "Trunkline"
    assert doc["info"]["version"] == "1.2.3"
    assert doc["components"]["securitySchemes"] == {"bearer": {"type": "http", "scheme": "bearer"}}
    assert doc["security"] == [{"bearer": []}]


async def test_every_route_of_the_api_is_there(world: World) -> None:
    doc = await document(world)
    operations = {(path, method) for path, item in doc["paths"].items() for method in item}
    expected = set()
    for rule in world.app.url_map.iter_rules():
        if rule.endpoint.startswith("pages.") or rule.endpoint == "meta.openapi":
            continue
        path = re.sub("<([^>]+)>", r"{\1}", rule.rule)
        for method in (rule.methods or set()) - {"HEAD"}:
            expected.add((path, method.lower()))
            operation = doc["paths"][path][method.lower()]
            public = rule.endpoint in PUBLIC_ENDPOINTS
            assert (operation.get("security") == []) == public
            assert ("401" in operation["responses"]) != public or path == "/v1/login"
            assert operation["summary"]
    assert operations == expected


async def test_no_reference_leads_nowhere(world: World) -> None:
    doc = await document(world)
    references = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                references.append(value)
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(doc)
    assert len(references) > 20
    for reference in references:
        resolve(doc, reference)


async def test_errors_are_problems(world: World) -> None:
    doc = await document(world)
    seen = set()
    for item in doc["paths"].values():
        for operation in item.values():
            for status, response in operation["responses"].items():
                assert response["description"]
                if int(status) >= 400:
                    seen.add(status)
                    assert list(response["content"]) == ["application/problem+json"]
    assert seen >= {"400", "401", "403", "404", "409", "413", "415", "426", "429", "500", "503"}


async def test_answers_have_the_documented_shape(world: World) -> None:
    doc = await document(world)
    session_id = (await world.create())["session_id"]
    one, attach = "/v1/sessions/{session_id}", "/v1/sessions/{session_id}/attach"
    body = {"profile": "default", "ttl_seconds": 5}
    for path, method, options in (
        ("/healthz", "get", {}),
        ("/v1/whoami", "get", {}),
        ("/v1/whoami", "get", {"bearer": None}),
        ("/v1/login", "post", {"json": {"code": "x"}}),
        ("/v1/login", "post", {"json": {}}),
        ("/v1/sessions", "post", {"json": body}),
        ("/v1/sessions", "post", {"json": {}}),
        ("/v1/sessions", "post", {"json": body | {"ttl_seconds": 10**9}}),
        ("/v1/sessions", "post", {"data": b"", "headers": {"Content-Type": "text/plain"}}),
        ("/v1/sessions", "get", {}),
        (one, "get", {}),
        (one, "get", {"bearer": "bob"}),
        (attach, "post", {"json": {}}),
        (attach, "delete", {}),
        (one + "/pty", "get", {}),
        (one, "delete", {}),
        (attach, "post", {"json": {}}),
        (one, "get", {}),
        ("/v1/sessions", "get", {}),
    ):
        address = path.format(session_id=session_id)
        response = await world.call(method.upper(), address, **options)
        await check(doc, path, method, response)


async def test_the_check_can_fail(world: World) -> None:
    doc = await document(world)
    schema = {"$ref": "#/components/schemas/Attach"}
    good = {"ws_url": "ws://x", "token": "t", "expires_at": "2026-01-01T00:00:00Z"}
    assert matches(doc, schema, good)
    assert not matches(doc, schema, good | {"expires_at": "2026-01-01T00:00:00+00:00"})
    assert not matches(doc, schema, good | {"extra": 1})
    assert not matches(doc, schema, {"ws_url": "x"})
