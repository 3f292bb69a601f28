"""One engine for all tests of this directory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runtimes.container import ContainerRuntime, EngineAddress
from tests.testing.container_engine import BUSYBOX_IMAGE, IMAGE, TestEngine, missing, podman_engine


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestEngine]:
    """A real engine, or a skip that says what is missing."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with podman_engine(tmp_path_factory.mktemp("engine")) as running:
        yield running


@pytest.fixture
def runtime(engine: TestEngine) -> Iterator[ContainerRuntime]:
    """A runtime on the engine; at the end no container may be left."""
    address = EngineAddress.parse(f"unix://{engine.socket}")
    yield ContainerRuntime(address, image=IMAGE, grace=0.2)
    assert engine.containers() == []


@pytest.fixture
def busybox_runtime(engine: TestEngine) -> Iterator[ContainerRuntime]:
    """The same with an image of nothing but busybox."""
    address = EngineAddress.parse(f"unix://{engine.socket}")
    yield ContainerRuntime(address, image=BUSYBOX_IMAGE, grace=0.2)
    assert engine.containers() == []
