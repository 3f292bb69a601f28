from __future__ import annotations

from api.times import EPOCH, format_time, moment_of


def test_times() -> None:
    assert format_time(0) == "1970-01-01T00:00:00.000000000Z"
    assert format_time(-1) == "1969-12-31T23:59:59.999999999Z"
    assert moment_of(0) == EPOCH


def test_times_beyond_our_calendar() -> None:
    assert format_time(2**63 * 10**9).startswith("9999-12-31")
    assert moment_of(-(2**62)) == EPOCH
