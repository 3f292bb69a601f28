"""The ``kubernetes`` runtime: sandboxes in pods of a cluster."""

from runtimes.kubernetes.runtime import KubernetesRuntime

__all__ = ["KubernetesRuntime"]
