from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.fields import AttachOptions, FieldError, parse_attach, parse_create, parse_login
from relay.endpoint import Kind
from relay.grant import Mode
from relay.socket_rules import SocketRules
from sessions.manager import CreateRequest

ABSENT = object()


def cases(table: dict[str, list[object]]) -> list[tuple[str, object]]:
    return [(name, value) for name, values in table.items() for value in values]


def encode(base: dict[str, Any], name: str, value: object) -> bytes:
    fields = {**base, name: value}
    return json.dumps({key: item for key, item in fields.items() if item is not ABSENT}).encode()


BAD_CREATE_FIELDS: dict[str, list[object]] = {
    "profile": [ABSENT, None, "", 1, True, [], {}, "x" * 129, "a\x00"],
    "ttl_seconds": [ABSENT, None, -1, True, 1.0, 1e3, "60", [60]],
    "placement_hint": [1, False, [], {}, "x" * 257, "a\nb"],
    "image_ref": [1, False, [], {}, "x" * 1025, "a\x1b[m"],
}


@pytest.mark.parametrize(("name", "value"), cases(BAD_CREATE_FIELDS))
def test_bad_create_fields(name: str, value: object) -> None:
    with pytest.raises(FieldError) as caught:
        parse_create(encode({"profile": "default", "ttl_seconds": 60}, name, value))
    assert caught.value.field == name
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("value", [ABSENT, None, ""])
def test_optional_strings_may_be_absent_null_or_empty(value: object) -> None:
    for name in ("placement_hint", "image_ref"):
        parsed = parse_create(encode({"profile": "p", "ttl_seconds": 0}, name, value))
        assert parsed == CreateRequest("p", 0, None, None)


def test_unknown_fields_are_ignored() -> None:
    body = encode({"profile": "p", "ttl_seconds": 1}, "cpu", {"cores": 3})
    assert parse_create(body) == CreateRequest("p", 1)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"3",
        b'"x"',
        b"[]",
        b"\xff\xfe",
        b'{"profile": "\xff"}',
        b'{"profile": "\\ud800"}',
        b"{} {}",
        b'{"ttl_seconds": NaN}',
        b'{"ttl_seconds": 1e999}',
        b'{"ttl_seconds": ' + b"9" * 60_000 + b"}",
        b"[" * 60_000,
        b'{"a":' * 10_000,
    ],
)
def test_bodies_that_are_no_json_object(body: bytes) -> None:
    with pytest.raises(FieldError) as caught:
        parse_create(body)
    assert caught.value.field == "body"


@pytest.mark.parametrize("body", [b"", b"  \r\n", b"{}", b'{"tag": null, "kinds": null}'])
def test_attach_defaults(body: bytes) -> None:
    assert parse_attach(body) == AttachOptions(
        frozenset({Kind.PTY, Kind.EXEC}), Mode.CONTROL, None, None, 1, 60
    )


def test_attach_takes_what_is_named() -> None:
    wish = {"kinds": ["pty", "pty"], "mode": "view", "tag": "x", "uses": 100, "ttl_seconds": 900}
    assert parse_attach(json.dumps(wish).encode()) == AttachOptions(
        frozenset({Kind.PTY}), Mode.VIEW, "x", None, 100, 900
    )
    wish = {"kinds": ["tcp", "vnc"], "ports": [8080, "3000-3999", "/run/vnc"]}
    assert parse_attach(json.dumps(wish).encode()) == AttachOptions(
        frozenset({Kind.TCP, Kind.VNC}),
        Mode.CONTROL,
        None,
        SocketRules(((3000, 3999), (8080, 8080)), frozenset({"/run/vnc"})),
        1,
        60,
    )


BAD_ATTACH_FIELDS: dict[str, list[object]] = {
    "kinds": ["pty", [], ["files"], [1], [["pty"]], ["pty", "x"], {}],
    "mode": ["", "VIEW", 1, ["view"], {}],
    "tag": ["", "a b", "a/b", "é", "x" * 65, 1, "a\n"],
    "ports": [8080, "8080", {}, [0], [65536], ["a"], [True], [None], [1.5], [[]], ["2-1"]],
    "uses": [0, 101, -1, 1.0, "1", True],
    "ttl_seconds": [0, 901, -1, 1.5, "1", False],
}


@pytest.mark.parametrize(("name", "value"), cases(BAD_ATTACH_FIELDS))
def test_bad_attach_fields(name: str, value: object) -> None:
    with pytest.raises(FieldError) as caught:
        parse_attach(encode({}, name, value))
    assert caught.value.field == name
    assert repr(name) in str(caught.value)


def errors_of(body: bytes) -> list[FieldError]:
    """Parse a body in every way there is; whatever else is raised fails the test."""
    errors = []
    for parse in (parse_create, parse_attach, parse_login):
        try:
            parse(body)
        except FieldError as error:
            errors.append(error)
    return errors


@given(st.binary(max_size=200))
def test_no_bytes_do_harm(body: bytes) -> None:
    for error in errors_of(body):
        assert error.field == "body" or repr(error.field) in str(error)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON_VALUES = (
    SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=3), SCALARS)
)
FIELDS = ["profile", "ttl_seconds", "placement_hint", "image_ref", "kinds", "mode", "tag", "ports"]


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(FIELDS), JSON_VALUES))
def test_no_json_does_harm(fields: dict[str, Any]) -> None:
    for error in errors_of(json.dumps(fields).encode()):
        assert error.field == "body" or repr(error.field) in str(error)
