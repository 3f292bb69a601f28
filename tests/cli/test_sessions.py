from __future__ import annotations

import click
import pytest

from trunkline.cli.sessions import Duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("90s", 90), ("15m", 900), ("1h", 3600), ("2d", 172800), (7, 7)],
)
def test_durations(text: str | int, seconds: int) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1", "1.5h", "1w", "1 h", "1h30m", "9" * 10, "٣"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no duration; write 90s, 15m, 1h or 2d"):
        Duration().convert(text, None, None)
