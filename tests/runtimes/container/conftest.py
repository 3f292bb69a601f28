"""The engines for the tests of this directory: each kind is started once, when first asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runtimes.container import ContainerRuntime, EngineAddress
from tests.testing.container_engine import (
    BUSYBOX_IMAGE,
    ENGINES,
    IMAGE,
    EngineNotStarted,
    TestEngine,
)


@pytest.fixture(scope="session", params=["podman"])
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestEngine]:
    """A real engine, or a skip that says what is missing.

    Podman, unless a test is parametrised with others of `ENGINES` (``indirect=True``).
    """
    kind = ENGINES[request.param]
    if (reason := kind.missing()) is not None:
        pytest.skip(reason)
    try:
        with kind.run(tmp_path_factory.mktemp(request.param)) as running:
            yield running
    except EngineNotStarted as error:
        pytest.skip(f"{request.param} cannot be started here: {error}")


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
