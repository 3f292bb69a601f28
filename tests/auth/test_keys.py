from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from auth.keys import Keyring, KeyringError, SigningKey, generate_key
from tests.testing.wall_clock import WallClock

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_made_once_private_and_kept(tmp_path: Path, clock: WallClock) -> None:
    directory = tmp_path / "keys"
    first = Keyring.open(directory, clock=clock)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    (path,) = directory.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = first.signing_key
    assert path.name == f"{key.kid}.json"
    assert (key.algorithm, len(key.secret), key.created_at) == ("HS256", 32, clock.now)
    second = Keyring.open(directory)
    assert second.signing_key == key
    assert len(second) == 1
    assert second.verification_key(key.kid) == key
    assert second.verification_key("0" * 16) is None


def test_the_newest_key_signs_and_all_verify(tmp_path: Path, clock: WallClock) -> None:
    Keyring.open(tmp_path / "keys", clock=clock)
    clock.advance(1)
    Keyring.open(tmp_path / "other", clock=clock)
    for path in (tmp_path / "other").iterdir():
        path.rename(tmp_path / "keys" / path.name)
    both = Keyring.open(tmp_path / "keys")
    assert len(both) == 2
    assert both.signing_key.created_at == clock.now


def test_a_secret_never_shows() -> None:
    key = generate_key()
    assert repr(key.secret) not in repr(key)
    assert key.secret.hex() not in repr(key)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"secret": bytes(31)}, "an HS256 key has 32 bytes, not 31"),
        ({"secret": bytes(33)}, "not 33"),
        ({"algorithm": "none"}, "'none' is not an algorithm"),
        ({"algorithm": "HS512"}, "'HS512' is not an algorithm"),
        ({"kid": "../../x"}, "a key id is 16 hexadecimal digits"),
        ({"created_at": datetime(2026, 1, 1)}, "no zone"),  # noqa: DTZ001 - the point
    ],
)
def test_keys_are_checked(changes: dict[str, Any], message: str) -> None:
    values: dict[str, Any] = {
        "kid": "0" * 16,
        "algorithm": "HS256",
        "created_at": NOW,
        "secret": bytes(32),
    }
    SigningKey(**values)
    with pytest.raises(ValueError, match=message):
        SigningKey(**(values | changes))


def test_a_keyring_without_keys_cannot_be() -> None:
    with pytest.raises(ValueError, match="at least one key"):
        Keyring([])


def edit(tmp_path: Path, **changes: Any) -> Path:
    Keyring.open(tmp_path / "keys")
    (path,) = (tmp_path / "keys").iterdir()
    document = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in document.items() if v is not None}))
    return path


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"secret": "AAAA"}, "an HS256 key has 32 bytes, not 3"),
        ({"secret": "!!"}, "it is damaged"),
        ({"secret": 7}, "it lacks what a key has"),
        ({"secret": None}, "it lacks what a key has"),
        ({"algorithm": "EdDSA"}, "'EdDSA' is not an algorithm this version signs with"),
        ({"created_at": "yesterday"}, "Invalid isoformat"),
    ],
)
def test_a_wrong_key_file_is_named_and_kept(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    path = edit(tmp_path, **changes)
    before = path.read_bytes()
    with pytest.raises(KeyringError, match=f"{path.name} is not a signing key.*{problem}.*delete"):
        Keyring.open(tmp_path / "keys")
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 4000])
def test_garbage_is_named_and_kept(tmp_path: Path, content: bytes) -> None:
    path = edit(tmp_path)
    path.write_bytes(content)
    with pytest.raises(KeyringError, match=f"{path.name} is not a signing key"):
        Keyring.open(tmp_path / "keys")
    assert path.read_bytes() == content


def test_a_file_under_another_name_is_refused(tmp_path: Path) -> None:
    path = edit(tmp_path)
    path.rename(path.with_name("0" * 16 + ".json"))
    with pytest.raises(KeyringError, match="holds the key"):
        Keyring.open(tmp_path / "keys")


def test_keys_that_others_can_read_are_refused(tmp_path: Path) -> None:
    path = edit(tmp_path)
    path.chmod(0o640)
    with pytest.raises(KeyringError, match="others can read"):
        Keyring.open(tmp_path / "keys")
    path.chmod(0o600)
    (tmp_path / "keys").chmod(0o755)
    with pytest.raises(KeyringError, match=r"others can read .*chmod 700"):
        Keyring.open(tmp_path / "keys")


def test_the_number_of_keys_is_bounded(tmp_path: Path) -> None:
    Keyring.open(tmp_path / "keys")
    for number in range(64):
        (tmp_path / "keys" / f"{number:016x}.json").write_text("{}")
    with pytest.raises(KeyringError, match="more than 64 keys"):
        Keyring.open(tmp_path / "keys")
