from __future__ import annotations

import errno
import os
import platform
from pathlib import Path
from types import SimpleNamespace

import pytest

from runtimes.files import kernel
from runtimes.files.beneath import ask_kernel, best_resolver


@pytest.fixture
def directory(tmp_path: Path) -> int:
    return os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)


def test_renaming_replaces_nothing(tmp_path: Path, directory: int) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    with pytest.raises(FileExistsError):
        kernel.rename_noreplace(directory, "a", directory, "b")
    kernel.rename_noreplace(directory, "a", directory, "c")
    assert sorted(os.listdir(tmp_path)) == ["b", "c"]
    with pytest.raises(FileNotFoundError):
        kernel.rename_noreplace(directory, "a", directory, "d")
    os.close(directory)


def test_where_the_c_library_does_not_know_the_call(
    tmp_path: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "_libc", SimpleNamespace(syscall=kernel._libc.syscall))
    (tmp_path / "a").write_text("a")
    kernel.rename_noreplace(directory, "a", directory, "b")
    assert os.listdir(tmp_path) == ["b"]
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")
    with pytest.raises(OSError) as caught:
        kernel.rename_noreplace(directory, "b", directory, "c")
    assert caught.value.errno == errno.ENOSYS
    os.close(directory)


def test_opening_beneath(tmp_path: Path, directory: int) -> None:
    (tmp_path / "f").write_text("x")
    if best_resolver() is not ask_kernel:
        pytest.skip("this kernel has no openat2")
    fd = kernel.openat2(directory, "../../f", os.O_PATH, kernel.RESOLVE_IN_ROOT)
    assert os.fstat(fd).st_ino == (tmp_path / "f").stat().st_ino
    assert not os.get_inheritable(fd)
    os.close(fd)
    with pytest.raises(FileNotFoundError):
        kernel.openat2(directory, "g", os.O_PATH, kernel.RESOLVE_IN_ROOT)
    os.close(directory)
