# ruff: noqa: PTH105 - these tests speak to the file system as directly as what they test

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtimes.files.entries import FileType, entry_of, etag_of, matches, printable, type_of


def test_an_etag_changes_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "f"
    seen = set()
    for content, modified in (("a", 1), ("bb", 1), ("bb", 2)):
        file.write_text(content)
        os.utime(file, ns=(modified, modified))
        seen.add(etag_of(file.stat()))
    os.replace(tmp_path / "f", tmp_path / "g")
    file.write_text("bb")
    os.utime(file, ns=(2, 2))
    seen.add(etag_of(file.stat()))
    assert len(seen) == 4
    assert not any('"' in etag or "," in etag for etag in seen)


def test_what_matches(tmp_path: Path) -> None:
    status = tmp_path.stat()
    etag = etag_of(status)
    assert matches(None, None)
    assert matches(None, status)
    assert matches("*", status)
    assert matches(f"x, {etag}", status)
    assert not matches("*", None)
    assert not matches("", status)
    assert not matches("x", status)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [(0o100644, "file"), (0o040755, "directory"), (0o120777, "symlink"), (0o010600, "other")],
)
def test_types(mode: int, expected: str) -> None:
    assert type_of(mode) is FileType(expected)


def test_an_entry(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"123")
    (tmp_path / "f").chmod(0o604)
    entry = entry_of("f", (tmp_path / "f").stat())
    assert (entry.path, entry.type, entry.size, entry.mode) == ("f", "file", 3, 0o604)


def test_names_that_are_not_utf_8() -> None:
    assert printable("ä") == "ä"
    assert printable(os.fsdecode(b"\xe4")) == "\ufffd"
