"""The contract of file streams, run against every runtime that has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtimes.base import Runtime
from runtimes.fake import FakeRuntime
from runtimes.local import LocalRuntime
from tests.contracts.files_contract import FilesContract


class TestLocal(FilesContract):
    @pytest.fixture
    def runtime(self, tmp_path: Path) -> Runtime:
        home = tmp_path / "root" / "home" / "user"
        home.mkdir(parents=True)
        return LocalRuntime(file_root=str(tmp_path / "root"), file_home="/home/user")


class TestFake(FilesContract):
    @pytest.fixture
    def runtime(self) -> Runtime:
        return FakeRuntime()
