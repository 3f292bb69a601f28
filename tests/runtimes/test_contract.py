"""The contract of `runtimes.base` and `relay.endpoint`, run against every runtime there is."""

from __future__ import annotations

import pytest

from runtimes.base import Runtime
from runtimes.fake import FakeRuntime
from runtimes.local import LocalRuntime
from tests.contracts.runtime_contract import BytesContract, LifeContract, RuntimeContract


class TestLocal(RuntimeContract, BytesContract, LifeContract):
    @pytest.fixture
    def runtime(self) -> Runtime:
        return LocalRuntime(grace=0.2, linger=0.2)


class TestFake(RuntimeContract, BytesContract, LifeContract):
    @pytest.fixture
    def runtime(self) -> Runtime:
        return FakeRuntime(grace=0.2)
