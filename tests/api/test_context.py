from __future__ import annotations

from pathlib import Path

import pytest

from tests.testing.api_world import World


@pytest.mark.parametrize(
    "url",
    ["", "shell.example.com", "ftp://a", "https://", "https://a?b", "https://a#b", "https://u@a"],
)
def test_public_urls_that_lead_nowhere(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match=r"must look like https://shell\.example\.com"):
        World(tmp_path, public_url=url)
