"""The order of the tests."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the SSH bridge last: importing trio-asyncio changes asyncio for the rest of the process.

    Playwright, which the browser tests use, does not run on what it puts in its place.
    """
    items.sort(key=lambda item: "tests/runtimes/ssh/" in item.path.as_posix())
