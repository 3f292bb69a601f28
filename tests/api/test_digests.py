from __future__ import annotations

import hashlib
from base64 import b64encode

import pytest

from api.digests import DigestError, Digests, digest_field, parse_digests, wants_sha256

SHA256 = hashlib.sha256(b"x")
SHA512 = hashlib.sha512(b"x")
FIELD = digest_field(SHA256.hexdigest())
FIELD512 = f"sha-512=:{b64encode(SHA512.digest()).decode()}:"


def test_the_example_of_the_standard() -> None:
    hexadecimal = hashlib.sha256(b'{"hello": "world"}\n').hexdigest()
    assert digest_field(hexadecimal) == "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ((), Digests()),
        ((None,), Digests()),
        ((FIELD,), Digests(sha256=SHA256.hexdigest())),
        ((FIELD, None, FIELD), Digests(sha256=SHA256.hexdigest())),
        ((f"{FIELD512} , {FIELD}",), Digests(SHA256.hexdigest(), SHA512.hexdigest())),
        (("unixsum=:AAAA:, md5=:AAAA:",), Digests()),
    ],
)
def test_fields(fields: tuple[str | None, ...], expected: Digests) -> None:
    assert parse_digests(*fields) == expected


@pytest.mark.parametrize(
    "fields",
    [
        ("sha-256",),
        ("sha-256=abc",),
        ("",),
        ("sha-256=:AAAA:",),
        ("sha-256=:A:",),
        (FIELD, digest_field("0" * 64)),
    ],
)
def test_malformed_fields(fields: tuple[str, ...]) -> None:
    with pytest.raises(DigestError):
        parse_digests(*fields)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (None, False),
        ("sha-256=1", True),
        ("sha-512=10, sha-256=2", True),
        ("sha-256=0", False),
        ("sha-512=3", False),
        ("nonsense", False),
    ],
)
def test_wishes(field: str | None, expected: bool) -> None:
    assert wants_sha256(field) is expected
