"""What the operations do on file systems that can do less than ours."""

# ruff: noqa: PTH115 - these tests speak to the file system as directly as what they test

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from relay.endpoint import FileOperation, FileRequest
from runtimes.files import operations
from runtimes.files.beneath import Root
from runtimes.files.errors import FileError
from runtimes.files.operations import Move, Operation, Site, Stat


@pytest.fixture
def site(top: Path) -> Site:
    return Site(Root(str(top)), "/home")


def move(site: Site, path: str, target: str) -> None:
    wish = FileRequest(FileOperation.MOVE, path, target=target, overwrite=False)
    Move(site, wish).finish()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS])
def test_moving_where_the_file_system_cannot_refuse_to_replace(
    site: Site, home: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def rename_noreplace(*_arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(operations, "rename_noreplace", rename_noreplace)
    (home / "a").write_text("a")
    (home / "b").write_text("b")
    (home / "d").mkdir()
    (home / "d" / "f").touch()
    (home / "link").symlink_to("nowhere")
    for source in ("a", "d", "link"):
        with pytest.raises(FileError, match="exists already"):
            move(site, source, "b")
        move(site, source, f"{source}-moved")
    assert sorted(os.listdir(home)) == ["a-moved", "b", "d-moved", "link-moved"]
    assert os.listdir(home / "d-moved") == ["f"]
    assert os.readlink(home / "link-moved") == "nowhere"
    site.root.close()


def test_a_digest_is_not_computed_of_large_files(
    site: Site, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "f").write_bytes(b"12345")
    wish = FileRequest(FileOperation.STAT, "f", digest=True)
    assert "sha256" in Stat(site, wish).finish()
    monkeypatch.setattr(operations, "DIGEST_BYTES", 4)
    assert "sha256" not in Stat(site, wish).finish()
    site.root.close()


def test_content_for_an_operation_that_takes_none(site: Site) -> None:
    operation: Operation = Stat(site, FileRequest(FileOperation.STAT, "."))
    with pytest.raises(FileError, match="takes no content"):
        operation.consume(b"x")
    assert operation.produce() == b""
    operation.interrupt()
    operation.abandon()
    site.root.close()
