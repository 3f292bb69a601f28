"""The images, and a cluster with a runtime on it, for all tests of this directory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from runtimes.kubernetes import KubernetesRuntime
from tests.testing.kube_config import write_kubeconfig
from tests.testing.kube_pod import missing, unpack_images
from tests.testing.kube_server import KubeServer, open_kube_server


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Root file systems by image name, or a skip that says what is missing."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    return unpack_images(tmp_path_factory.mktemp("images"))


@pytest.fixture
async def server(images: Mapping[str, Path]) -> AsyncIterator[KubeServer]:
    """A double of an API server; at the end no pod may be left."""
    async with open_kube_server(images) as running:
        yield running


@pytest.fixture
def runtime(server: KubeServer, tmp_path: Path) -> KubernetesRuntime:
    """A runtime on the double."""
    config = write_kubeconfig(tmp_path / "kubeconfig", server.url)
    return KubernetesRuntime(config, image="full", grace=0.2)
