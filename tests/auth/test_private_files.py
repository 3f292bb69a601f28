from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from auth.private_files import (
    PrivateFileError,
    create_private_file,
    ensure_private_directory,
    read_private_file,
)


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_a_new_file_is_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "secret"
    old = os.umask(umask)
    try:
        create_private_file(path, b"x" * 100)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_private_file(path, max_bytes=100) == b"x" * 100


def test_nothing_is_ever_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for name in ("secret", "link"):
        with pytest.raises(FileExistsError):
            create_private_file(tmp_path / name, b"yours")
    assert path.read_text() == "mine"
    assert not (tmp_path / "target").exists()


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PrivateFileError, match=r"cannot create .*nowhere.*No such file"):
        create_private_file(tmp_path / "nowhere" / "secret", b"x")


def test_a_failed_write_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PrivateFileError, match=r"cannot write .*No space left"):
        create_private_file(tmp_path / "secret", b"x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602, 0o601])
def test_a_file_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    create_private_file(path, b"x")
    path.chmod(mode)
    with pytest.raises(PrivateFileError, match=f"others can read .*{mode:04o}.*chmod 600"):
        read_private_file(path, max_bytes=10)


def test_strange_things_are_refused_and_do_not_block(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name in ("directory", "fifo"):
        with pytest.raises(PrivateFileError, match="is not a plain file"):
            read_private_file(tmp_path / name, max_bytes=10)
    create_private_file(tmp_path / "secret", b"x")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(PrivateFileError, match="cannot open"):
        read_private_file(tmp_path / "link", max_bytes=10)
    with pytest.raises(FileNotFoundError):
        read_private_file(tmp_path / "none", max_bytes=10)


def test_empty_and_oversized_files_are_refused(tmp_path: Path) -> None:
    create_private_file(tmp_path / "empty", b"")
    with pytest.raises(PrivateFileError, match="is empty: delete it"):
        read_private_file(tmp_path / "empty", max_bytes=10)
    create_private_file(tmp_path / "large", b"x" * 11)
    with pytest.raises(PrivateFileError, match="larger than 10 bytes"):
        read_private_file(tmp_path / "large", max_bytes=10)


def test_directories(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    ensure_private_directory(path)
    ensure_private_directory(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    path.chmod(0o750)
    with pytest.raises(PrivateFileError, match=r"others can read .*0750.*chmod 700"):
        ensure_private_directory(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(PrivateFileError, match="is not a directory"):
        ensure_private_directory(tmp_path / "file")
    with pytest.raises(PrivateFileError, match="cannot make the directory"):
        ensure_private_directory(tmp_path / "file" / "below")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    create_private_file(path, b"x")
    os.chown(path, 12345, -1)
    with pytest.raises(PrivateFileError, match=r"belongs to another user \(uid 12345\)"):
        read_private_file(path, max_bytes=10)
