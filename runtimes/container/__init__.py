"""The ``container`` runtime: sandboxes in containers of a Docker or Podman engine."""

from runtimes.container.address import EngineAddress
from runtimes.container.runtime import ContainerRuntime

__all__ = ["ContainerRuntime", "EngineAddress"]
