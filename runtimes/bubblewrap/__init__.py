"""Sandboxes in namespaces of their own, made by bubblewrap (bwrap)."""

from runtimes.bubblewrap.runtime import BubblewrapRuntime

__all__ = ["BubblewrapRuntime"]
