from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from auth.credential_file import (
    PREFIX,
    load_or_create_credential,
    new_credential,
    read_credential,
)
from auth.private_files import PrivateFileError


def test_made_once_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "credential"
    with pytest.raises(FileNotFoundError):
        read_credential(path)
    credential = load_or_create_credential(path)
    assert credential.startswith(PREFIX)
    assert len(credential) == len(PREFIX) + 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create_credential(path) == credential
    assert read_credential(path) == credential


def test_it_is_the_32_bytes_it_was_made_of() -> None:
    sizes = []

    def entropy(size: int) -> bytes:
        sizes.append(size)
        return bytes(range(size))

    assert new_credential(entropy) == "trunk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert sizes == [32]
    assert new_credential() != new_credential()


@pytest.mark.parametrize("content", [b"trunk_short\n", b"\xff\xfe", b"x" * 49, b"trunk_" * 100])
def test_what_is_no_credential_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "credential"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(PrivateFileError, match=r"holds no credential .* delete it"):
        load_or_create_credential(path)
    assert path.read_bytes() == content


def test_one_that_others_could_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "credential"
    credential = load_or_create_credential(path)
    path.chmod(0o644)
    with pytest.raises(PrivateFileError, match="others can read") as caught:
        load_or_create_credential(path)
    assert credential not in str(caught.value)


def test_when_another_start_was_faster_its_credential_is_the_one(tmp_path: Path) -> None:
    path = tmp_path / "credential"
    theirs = new_credential()

    def entropy(size: int) -> bytes:
        path.write_text(theirs + "\n")
        path.chmod(0o600)
        return bytes(size)

    assert load_or_create_credential(path, entropy=entropy) == theirs


def test_starts_at_the_same_time_agree(tmp_path: Path) -> None:
    results: list[str] = []
    problems: list[str] = []
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        try:
            results.append(load_or_create_credential(tmp_path / "credential"))
        except PrivateFileError as exc:
            # Seen between the making of the file and the writing of it: refused, not replaced.
            problems.append(str(exc))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(results)) == 1
    assert all("is empty" in problem for problem in problems)
    assert read_credential(tmp_path / "credential") == results[0]
