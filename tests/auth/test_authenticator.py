from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auth.authenticator import (
    CONSOLE_TOKEN_SECONDS,
    LOGIN_CODE_SECONDS,
    OWNER,
    AuthenticationError,
    Authenticator,
)
from auth.credential_file import new_credential
from auth.keys import Keyring, generate_key
from auth.principal import Principal
from tests.testing.wall_clock import WallClock

CREDENTIAL = new_credential(lambda size: bytes(range(size)))


@pytest.fixture
def authenticator(
    keyring: Keyring, clock: WallClock, entropy: Callable[[int], bytes]
) -> Authenticator:
    return Authenticator(CREDENTIAL, keyring, clock=clock, entropy=entropy)


@pytest.fixture
def dev(keyring: Keyring, clock: WallClock) -> Authenticator:
    return Authenticator(CREDENTIAL, keyring, dev=True, clock=clock)


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER   "])
def test_the_credential_is_the_owners(authenticator: Authenticator, scheme: str) -> None:
    assert authenticator.authenticate(scheme + CREDENTIAL) == OWNER == Principal("owner")
    assert authenticator.authenticate(scheme + CREDENTIAL + " ") == OWNER


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (None, "no credential: send the header 'Authorization: Bearer <credential>'"),
        ("", "malformed credential"),
        ("Bearer", "malformed credential"),
        ("Bearer ", "malformed credential"),
        ("Bearer a b", "malformed credential"),
        ("Bearer é", "malformed credential"),
        ("Bearer \0", "malformed credential"),
        (f"Basic {CREDENTIAL}", "malformed credential"),
        (CREDENTIAL, "malformed credential"),
        (f"Bearer {CREDENTIAL}\n", "malformed credential"),
        ("Bearer " + "x" * 4097, "malformed credential"),
        ("Bearer " + "x" * 4096, "unknown credential"),
        (f"Bearer {CREDENTIAL[:-1]}", "unknown credential"),
        (f"Bearer {CREDENTIAL}x", "unknown credential"),
        (f"Bearer {CREDENTIAL.upper()}", "unknown credential"),
    ],
)
def test_everything_else_is_refused_and_not_repeated(
    authenticator: Authenticator, header: str | None, message: str
) -> None:
    with pytest.raises(AuthenticationError, match=message) as caught:
        authenticator.authenticate(header)
    assert CREDENTIAL[:-1] not in str(caught.value)
    assert authenticator.statistics().rejected == 1
    assert authenticator.statistics().accepted == 0


def test_the_comparison_takes_constant_time(
    authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes through `compare_digest`, on values of one length whatever was sent."""
    lengths = []
    real = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        lengths.append((len(one), len(other)))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    for bearer in (CREDENTIAL, "x", "x" * 4000):
        try:
            authenticator.authenticate(f"Bearer {bearer}")
        except AuthenticationError:
            assert bearer != CREDENTIAL
    assert lengths[0] == (32, 32)
    # The token check of the library compares signatures the same way; ours is one per call.
    assert lengths == [(32, 32)] * 3


def test_an_empty_credential_is_not_allowed(keyring: Keyring) -> None:
    with pytest.raises(ValueError, match="empty credential"):
        Authenticator("", keyring)


def test_dev_takes_everybody_for_somebody_of_their_own(dev: Authenticator) -> None:
    subject = "dev-" + hashlib.sha256(b"alice").hexdigest()[:12]
    assert dev.authenticate("Bearer alice") == Principal(subject)
    assert dev.authenticate("Bearer bob").subject != subject
    assert dev.authenticate(f"Bearer {CREDENTIAL}") == OWNER
    assert dev.authenticate("Bearer a.b.c").subject.startswith("dev-")
    for header in (None, "", "Bearer", "Bearer "):
        with pytest.raises(AuthenticationError):
            dev.authenticate(header)


def test_a_login_code_lets_in_once(authenticator: Authenticator, clock: WallClock) -> None:
    alice = Principal("alice", frozenset({"staff"}), frozenset({"admin"}))
    code = authenticator.issue_login_code(alice)
    assert len(code) == 64
    token = authenticator.exchange_login_code(code)
    assert token.expires_at == clock.now + timedelta(seconds=CONSOLE_TOKEN_SECONDS)
    assert token.token not in repr(token)
    assert authenticator.authenticate(f"Bearer {token.token}") == replace(alice, derived=True)
    with pytest.raises(AuthenticationError, match="was used, has expired or is from another"):
        authenticator.exchange_login_code(code)


@pytest.mark.parametrize("code", ["", "x", "0" * 64, "\udcff", "é" * 10_000])
def test_an_unknown_code_is_refused(authenticator: Authenticator, code: str) -> None:
    authenticator.issue_login_code(OWNER)
    with pytest.raises(AuthenticationError):
        authenticator.exchange_login_code(code)
    assert authenticator.statistics().login_codes.entries == 1


def test_a_login_code_expires(authenticator: Authenticator, clock: WallClock) -> None:
    early, late = (authenticator.issue_login_code(OWNER) for _ in range(2))
    clock.advance(LOGIN_CODE_SECONDS - 0.001)
    authenticator.exchange_login_code(early)
    clock.advance(0.001)
    with pytest.raises(AuthenticationError):
        authenticator.exchange_login_code(late)


def test_login_codes_are_bounded_and_fair(authenticator: Authenticator) -> None:
    mine = authenticator.issue_login_code(OWNER)
    for _ in range(3000):
        authenticator.issue_login_code(Principal("greedy"))
    assert authenticator.statistics().login_codes.entries == 1024
    authenticator.exchange_login_code(mine)


def test_a_console_token_expires_even_for_dev(
    authenticator: Authenticator, dev: Authenticator, clock: WallClock
) -> None:
    token = authenticator.exchange_login_code(authenticator.issue_login_code(OWNER)).token
    assert dev.authenticate(f"Bearer {token}") == replace(OWNER, derived=True)
    clock.advance(CONSOLE_TOKEN_SECONDS)
    for one in (authenticator, dev):
        with pytest.raises(AuthenticationError, match="console token has expired: sign in again"):
            one.authenticate(f"Bearer {token}")


def test_console_tokens_outlive_a_restart_but_not_the_keys(
    authenticator: Authenticator, keyring: Keyring, clock: WallClock
) -> None:
    token = authenticator.exchange_login_code(authenticator.issue_login_code(OWNER)).token
    restarted = Authenticator(CREDENTIAL, keyring, clock=clock)
    assert restarted.authenticate(f"Bearer {token}") == replace(OWNER, derived=True)
    rekeyed = Authenticator(CREDENTIAL, Keyring([generate_key()]), clock=clock)
    with pytest.raises(AuthenticationError, match="unknown credential"):
        rekeyed.authenticate(f"Bearer {token}")


STRICT = Authenticator(CREDENTIAL, Keyring([generate_key()]))


@settings(deadline=None)
@given(st.text())
def test_any_header_is_refused_and_nothing_else_is_raised(text: str) -> None:
    for header in (text, "Bearer " + text):
        with pytest.raises(AuthenticationError):
            STRICT.authenticate(header)
