from __future__ import annotations

import base64
import hmac
import json
import string
from datetime import timedelta
from typing import Any

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auth.keys import Keyring, SigningKey, generate_key
from auth.signer import MAX_TOKEN_CHARACTERS, Signer, TokenError, TokenExpired
from tests.testing.wall_clock import WallClock

KEY = generate_key()
KEYRING = Keyring([KEY])
CLOCK = WallClock()
SIGNER = Signer(KEYRING, audience="here", token_type="test+jwt", clock=CLOCK)
TOKEN, _ = SIGNER.sign({"x": 1}, subject="me", token_id="1", ttl_seconds=60)
BASE = {"iss": "trunkline", "aud": "here", "sub": "me", "jti": "1", "iat": 0, "exp": 2**40}
DIGESTS = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}
HEADER = {"kid": KEY.kid, "typ": "test+jwt"}


def encode(
    payload: dict[str, Any] | None = None,
    header: dict[str, Any] | None = None,
    key: SigningKey = KEY,
    algorithm: str = "HS256",
) -> str:
    """Sign by hand: the library refuses to make what it must refuse to accept."""
    document = {"alg": algorithm} | (HEADER if header is None else header)
    signed = f"{_segment(document)}.{_segment(BASE if payload is None else payload)}"
    digest = hmac.digest(key.secret, signed.encode(), DIGESTS[algorithm])
    return f"{signed}.{_b64(digest)}"


def test_what_is_signed_is_verified(clock: WallClock) -> None:
    signer = Signer(KEYRING, audience="here", token_type="test+jwt", clock=clock)
    clock.advance(0.25)
    token, expires_at = signer.sign({"x": [1]}, subject="me", token_id="9", ttl_seconds=60)
    assert expires_at == clock.now + timedelta(seconds=60.75)
    claims = signer.verify(token)
    assert claims["x"] == [1]
    assert (claims["iss"], claims["aud"], claims["sub"]) == ("trunkline", "here", "me")
    assert jwt.get_unverified_header(token) == {"alg": "HS256", **HEADER}


def test_expiry_is_exact_and_without_leeway(clock: WallClock) -> None:
    signer = Signer(KEYRING, audience="here", token_type="test+jwt", clock=clock)
    token, expires_at = signer.sign({}, subject="me", token_id="9", ttl_seconds=60)
    clock.now = expires_at - timedelta(microseconds=1)
    signer.verify(token)
    clock.now = expires_at
    with pytest.raises(TokenExpired, match="has expired"):
        signer.verify(token)


def test_the_hand_made_token_of_these_tests_is_accepted() -> None:
    assert SIGNER.verify(encode()) == BASE


@pytest.mark.parametrize("claim", sorted(BASE))
def test_every_registered_claim_is_required(claim: str) -> None:
    with pytest.raises(TokenError):
        SIGNER.verify(encode({k: v for k, v in BASE.items() if k != claim}))


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "somebody"},
        {"iss": ["trunkline"]},
        {"aud": "there"},
        {"aud": ["here"]},
        {"aud": ["here", "there"]},
        {"sub": 7},
        {"jti": 7},
        {"exp": "9999999999"},
        {"exp": 1e300},
        {"exp": True},
        {"exp": None},
    ],
)
def test_claims_must_be_exactly_right(changes: dict[str, Any]) -> None:
    with pytest.raises(TokenError):
        SIGNER.verify(encode(BASE | changes))


@pytest.mark.parametrize(
    "header",
    [
        {"kid": "0" * 16, "typ": "test+jwt"},
        {"kid": None, "typ": "test+jwt"},
        {"typ": "test+jwt"},
        {"kid": KEY.kid, "typ": "other+jwt"},
        {"kid": KEY.kid},
        {**HEADER, "crit": ["x"], "x": 1},
    ],
)
def test_headers_must_be_exactly_right(header: dict[str, Any]) -> None:
    with pytest.raises(TokenError):
        SIGNER.verify(encode(header=header))


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_the_key_fixes_the_algorithm(algorithm: str) -> None:
    with pytest.raises(TokenError):
        SIGNER.verify(encode(algorithm=algorithm))


def test_no_algorithm_is_no_signature() -> None:
    body = encode().split(".")[1]
    for name in ("none", "None", "NONE", "", None, 7, ["HS256"]):
        segment = _segment({"alg": name, **HEADER})
        for signature in ("", "AA", _b64(bytes(32))):
            with pytest.raises(TokenError):
                SIGNER.verify(f"{segment}.{body}.{signature}")


def test_another_servers_key_is_refused() -> None:
    other = generate_key()
    impostor = SigningKey(KEY.kid, "HS256", other.created_at, other.secret)
    for key in (other, impostor):
        with pytest.raises(TokenError):
            SIGNER.verify(encode(header={**HEADER, "kid": key.kid}, key=key))


def test_an_older_key_still_verifies() -> None:
    newer = generate_key()
    both = Signer(Keyring([KEY, newer]), audience="here", token_type="test+jwt", clock=CLOCK)
    assert both.verify(TOKEN)["x"] == 1
    fresh, _ = both.sign({}, subject="me", token_id="2", ttl_seconds=1)
    assert jwt.get_unverified_header(fresh)["kid"] == newer.kid


def test_another_spelling_of_the_same_bytes_is_refused() -> None:
    # The last of 43 characters carries two bits that count for nothing.
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    head, last = TOKEN[:-1], TOKEN[-1]
    accepted = []
    for character in alphabet:
        try:
            SIGNER.verify(head + character)
        except TokenError:
            continue
        accepted.append(character)
    assert accepted == [last]
    for other in (TOKEN + "=", TOKEN + "\n", " " + TOKEN, TOKEN + ".", "." + TOKEN):
        with pytest.raises(TokenError):
            SIGNER.verify(other)


def test_oversized_tokens_are_refused_unparsed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_token: str) -> dict[str, Any]:
        raise AssertionError("it was parsed")

    monkeypatch.setattr(jwt, "get_unverified_header", never)
    with pytest.raises(TokenError, match="too long"):
        SIGNER.verify("a." * (MAX_TOKEN_CHARACTERS // 2) + "a")


def test_a_token_that_nobody_would_accept_is_not_made() -> None:
    with pytest.raises(ValueError, match="longer than 4096"):
        SIGNER.sign({"x": "y" * 4000}, subject="me", token_id="1", ttl_seconds=1)


@pytest.mark.parametrize("token", ["", ".", "..", "a.b", "a.b.c", "é.é.é", "\0.\0.\0", "a.b.c.d"])
def test_garbage(token: str) -> None:
    with pytest.raises(TokenError):
        SIGNER.verify(token)


def test_deep_nesting_is_refused() -> None:
    for part in ("[" * 1500, '{"a":' * 500):
        with pytest.raises(TokenError):
            SIGNER.verify(f"{_b64(part.encode())}.{_b64(b'{}')}.{_b64(bytes(32))}")


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_no_altered_token_is_ever_accepted(data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(TOKEN) - 1))
    length = data.draw(st.integers(0, 3))
    replacement = data.draw(st.one_of(st.text(max_size=3), st.text("ABCDabcd0189-_=.", max_size=3)))
    altered = TOKEN[:position] + replacement + TOKEN[position + length :]
    if altered == TOKEN:
        assert SIGNER.verify(altered)["x"] == 1
        return
    with pytest.raises(TokenError) as caught:
        SIGNER.verify(altered)
    assert TOKEN.split(".")[2] not in str(caught.value)
    assert caught.value.__cause__ is None


@settings(deadline=None)
@given(st.text())
def test_any_text_is_refused_and_nothing_else_is_raised(text: str) -> None:
    with pytest.raises(TokenError):
        SIGNER.verify(text)


@settings(max_examples=200, deadline=None)
@given(
    header=st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk"]),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.text(),
            st.sampled_from(["HS256", "none", KEY.kid, "test+jwt"]),
            st.lists(st.sampled_from(["b64", "x"])),
        ),
    ),
    payload=st.dictionaries(st.sampled_from(sorted(BASE)), st.one_of(st.integers(), st.text())),
    signature=st.binary(max_size=40),
)
def test_forged_headers_are_refused_and_nothing_else_is_raised(
    header: dict[str, Any], payload: dict[str, Any], signature: bytes
) -> None:
    with pytest.raises(TokenError):
        SIGNER.verify(f"{_segment(header)}.{_segment(payload)}.{_b64(signature)}")


def _segment(document: dict[str, Any]) -> str:
    return _b64(json.dumps(document).encode())


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
