"""What clients may send: request bodies into checked values.  Pure.

Every error names the field and says what is expected.  Fields that are not known are ignored, so
that clients of a newer or another server are understood.  ``null`` counts as absent where the
field is optional.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from api.file_schemas import MakeDirectory, MoveFile
from api.schemas import ExecRequest, SignalRequest
from relay.endpoint import Kind
from relay.grant import Mode
from relay.socket_rules import SocketRules
from sessions.manager import CreateRequest

BODY = "body"
"""The name given as the field when the body as a whole is wrong."""

ATTACHABLE = (Kind.PTY, Kind.EXEC, Kind.FILE, Kind.TCP, Kind.VNC)
"""The kinds of stream a ticket can be made for."""
DEFAULT_KINDS = (Kind.PTY, Kind.EXEC)
"""The kinds a ticket is for that does not say; as much as those of cloudshell-fog."""

MAX_PROFILE = 128
MAX_PLACEMENT_HINT = 256
MAX_IMAGE_REF = 1024
MAX_LOGIN_CODE = 512
TAG = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""A stream's name (docs/spec/trunk-1.md § 5)."""
MAX_USES = 100
DEFAULT_ATTACH_TTL = 60
MAX_ATTACH_TTL = 900
"""Seconds; what the ticket of a new session lives."""


class FieldError(Exception):
    """A field of the request is missing or not valid; the message says what is expected."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class AttachOptions:
    """What a ticket is asked to cover.  `ttl_seconds` is how long it lives."""

    kinds: frozenset[Kind]
    mode: Mode
    tag: str | None
    ports: SocketRules | None
    uses: int
    ttl_seconds: int


def parse_create(body: bytes) -> CreateRequest:
    """Read the body of ``POST /v1/sessions``.

    Raises:
      FieldError: the body or one of its fields is not valid.
    """
    fields = _Fields(_json_object(body))
    return CreateRequest(
        profile=fields.required_string("profile", MAX_PROFILE),
        ttl_seconds=fields.integer("ttl_seconds", minimum=0),
        placement_hint=fields.optional_string("placement_hint", MAX_PLACEMENT_HINT),
        image_ref=fields.optional_string("image_ref", MAX_IMAGE_REF),
    )


def parse_attach(body: bytes) -> AttachOptions:
    """Read the body of ``POST /v1/sessions/{id}/attach``; an empty one means the defaults.

    Raises:
      FieldError: the body or one of its fields is not valid.
    """
    fields = _Fields(_json_object(body) if body.strip() else {})
    kinds = fields.choices("kinds", [kind.value for kind in ATTACHABLE])
    return AttachOptions(
        kinds=frozenset(DEFAULT_KINDS if kinds is None else map(Kind, kinds)),
        mode=Mode(fields.choice("mode", [mode.value for mode in Mode], Mode.CONTROL.value)),
        tag=fields.tag("tag"),
        ports=fields.ports("ports"),
        uses=fields.integer("uses", minimum=1, maximum=MAX_USES, default=1),
        ttl_seconds=fields.integer(
            "ttl_seconds", minimum=1, maximum=MAX_ATTACH_TTL, default=DEFAULT_ATTACH_TTL
        ),
    )


def parse_exec(body: bytes) -> ExecRequest:
    """Read the body of ``POST /v1/sessions/{id}/exec``.

    Raises:
      FieldError: the body or one of its fields is not valid.
    """
    wish = _convert(body, ExecRequest)
    if wish.stdin is not None and wish.stdin_base64 is not None:
        raise FieldError("stdin_base64", "Give either 'stdin' or 'stdin_base64', not both.")
    return wish


def parse_signal(body: bytes) -> SignalRequest:
    """Read the body of ``POST /v1/sessions/{id}/streams/{tag}/signal``.

    Raises:
      FieldError: the body or one of its fields is not valid.
    """
    return _convert(body, SignalRequest)


def parse_make_directory(body: bytes) -> MakeDirectory:
    """Read the body of ``POST /v1/sessions/{id}/files/mkdir``.

    Raises:
      FieldError: the body or one of its fields is not valid.
    """
    return _convert(body, MakeDirectory)


def parse_move(body: bytes) -> MoveFile:
    """Read the body of ``POST /v1/sessions/{id}/files/move``.

    Raises:
      FieldError: the body or one of its fields is not valid.
    """
    return _convert(body, MoveFile)


def parse_login(body: bytes) -> str:
    """Read the body of ``POST /v1/login`` and return the code.

    Raises:
      FieldError: the body or its `code` is not valid.
    """
    return _Fields(_json_object(body)).required_string("code", MAX_LOGIN_CODE)


_FIELD_OF_ERROR = re.compile(r"required field `(\w+)`|at `\$\.(\w+)")
_Struct = TypeVar("_Struct", bound=msgspec.Struct)


def _convert(body: bytes, to: type[_Struct]) -> _Struct:
    """Read a body as a structure; its own annotations are the rules."""
    try:
        return msgspec.convert(_json_object(body), to)
    except msgspec.ValidationError as error:
        found = _FIELD_OF_ERROR.search(str(error))
        field = (found[1] or found[2]) if found else BODY
        raise FieldError(field, f"{field!r} is not valid: {error}.") from None


def _json_object(body: bytes) -> Mapping[str, object]:
    try:
        value = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise FieldError(BODY, f"The body must be JSON in UTF-8: {error}.") from None
    except (RecursionError, ValueError):
        # Nested deeper, or a number longer, than the parser goes.
        raise FieldError(BODY, "The body is JSON that no request of this API needs.") from None
    if not isinstance(value, dict):
        raise FieldError(BODY, f"The body must be a JSON object, not {_name(value)}.")
    return value


class _Fields:
    """Checked access to the fields of a JSON object."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def required_string(self, name: str, longest: int) -> str:
        if name not in self._values:
            raise FieldError(name, f"Add the field {name!r}: a string.")
        value = self._values[name]
        if not isinstance(value, str):
            raise FieldError(name, f"{name!r} must be a string, not {_name(value)}.")
        if not value:
            raise FieldError(name, f"{name!r} must not be empty.")
        if len(value) > longest:
            raise FieldError(name, f"{name!r} must have at most {longest} characters.")
        if not value.isprintable():
            raise FieldError(name, f"{name!r} must not contain control characters.")
        return value

    def optional_string(self, name: str, longest: int) -> str | None:
        # Clients that fill every field of a record send "" for what they do not want.
        if self._values.get(name) in (None, ""):
            return None
        return self.required_string(name, longest)

    def tag(self, name: str) -> str | None:
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, str) or TAG.fullmatch(value) is None:
            raise FieldError(name, f"{name!r} must be 1 to 64 of A-Z a-z 0-9 . _ -")
        return value

    def ports(self, name: str) -> SocketRules | None:
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, list):
            raise FieldError(name, f'{name!r} must be a list like [8080, "3000-3999"].')
        try:
            return SocketRules.parse(value)
        except ValueError as error:
            raise FieldError(name, f"{name!r} is not valid: {error}.") from None

    def integer(
        self, name: str, *, minimum: int, maximum: int | None = None, default: int | None = None
    ) -> int:
        value = self._values.get(name)
        if value is None and default is not None:
            return default
        limits = f"of {minimum} or more" if maximum is None else f"in {minimum}..{maximum}"
        if name not in self._values:
            raise FieldError(name, f"Add the field {name!r}: an integer {limits}.")
        if not isinstance(value, int) or isinstance(value, bool):
            raise FieldError(name, f"{name!r} must be an integer {limits}, not {_name(value)}.")
        if value < minimum or (maximum is not None and value > maximum):
            raise FieldError(name, f"{name!r} must be an integer {limits}.")
        return value

    def choice(self, name: str, allowed: Sequence[str], default: str) -> str:
        value = self._values.get(name)
        if value is None:
            return default
        if not isinstance(value, str) or value not in allowed:
            raise FieldError(name, f"{name!r} must be one of {', '.join(allowed)}.")
        return value

    def choices(self, name: str, allowed: Sequence[str]) -> Sequence[str] | None:
        value = self._values.get(name)
        if value is None:
            return None
        expected = f"{name!r} must be a list of one or more of {', '.join(allowed)}."
        if not isinstance(value, list) or not value:
            raise FieldError(name, expected)
        for item in value:
            if not isinstance(item, str) or item not in allowed:
                raise FieldError(name, expected)
        return value


def _name(value: object) -> str:
    """Name the JSON type of a value."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a number with a fraction or an exponent"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
