"""Sandboxes that are processes of the server's own user, on the server's own machine."""

from runtimes.local.runtime import LocalRuntime

__all__ = ["LocalRuntime"]
