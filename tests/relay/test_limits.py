"""Limits that cannot work are refused."""

from __future__ import annotations

import pytest

from relay.limits import StreamLimits
from relay.protocol.windows import RENEW_BYTES


def test_the_defaults_are_good() -> None:
    StreamLimits()
    StreamLimits(ring_bytes=RENEW_BYTES)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"ring_bytes": RENEW_BYTES - 1}, "at least 131072"),
        ({"read_bytes": 0}, "read_bytes"),
        ({"ring_bytes": RENEW_BYTES, "read_bytes": RENEW_BYTES + 1}, "read_bytes"),
    ],
)
def test_sizes_that_cannot_work(fields: dict[str, int], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        StreamLimits(**fields)
