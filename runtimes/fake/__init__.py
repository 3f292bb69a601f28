"""Sandboxes in memory, with little programs: for tests, demonstrations and front-end work."""

from runtimes.fake.runtime import FakeRuntime

__all__ = ["FakeRuntime"]
