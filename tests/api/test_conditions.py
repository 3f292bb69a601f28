from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from api.conditions import (
    ByteRange,
    Outcome,
    Unsatisfiable,
    Version,
    evaluate,
    http_date,
    is_conditional,
    range_applies,
    requested_range,
)

THEN = datetime(2026, 1, 1, tzinfo=UTC)
CURRENT = Version("e1", THEN)
EARLIER, SAME, LATER = (http_date(THEN + timedelta(days=d)) for d in (-1, 0, 1))
P, N, F = Outcome.PROCEED, Outcome.NOT_MODIFIED, Outcome.FAILED


@pytest.mark.parametrize(
    ("headers", "get", "put", "put_nothing"),
    [
        ({}, P, P, P),
        ({"If-Match": '"e1"'}, P, P, F),
        ({"If-Match": '"x", "e1"'}, P, P, F),
        ({"If-Match": "*"}, P, P, F),
        ({"If-Match": 'W/"e1"'}, F, F, F),
        ({"If-Match": '"x"'}, F, F, F),
        ({"If-Match": "e1"}, F, F, F),
        ({"If-None-Match": "*"}, N, F, P),
        ({"If-None-Match": 'W/"e1"'}, N, F, P),
        ({"If-None-Match": '"x"'}, P, P, P),
        ({"If-Modified-Since": SAME}, N, P, P),
        ({"If-Modified-Since": LATER}, N, P, P),
        ({"If-Modified-Since": EARLIER}, P, P, P),
        ({"If-Modified-Since": "yesterday"}, P, P, P),
        ({"If-None-Match": '"x"', "If-Modified-Since": LATER}, P, P, P),
        ({"If-Unmodified-Since": SAME}, P, P, F),
        ({"If-Unmodified-Since": EARLIER}, F, F, F),
        ({"If-Unmodified-Since": "soon"}, P, P, P),
        ({"If-Match": '"e1"', "If-Unmodified-Since": EARLIER}, P, P, F),
        ({"If-Match": '"x"', "If-None-Match": '"e1"'}, F, F, F),
    ],
)
def test_preconditions(
    headers: dict[str, str], get: Outcome, put: Outcome, put_nothing: Outcome
) -> None:
    assert evaluate("GET", headers, CURRENT) is get
    assert evaluate("HEAD", headers, CURRENT) is get
    assert evaluate("PUT", headers, CURRENT) is put
    assert evaluate("PUT", headers, None) is put_nothing
    assert is_conditional(headers) is bool(headers)


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (None, None),
        ("bytes=0-0", ByteRange(0, 1)),
        ("bytes=0-99", ByteRange(0, 10)),
        ("bytes=9-", ByteRange(9, 10)),
        ("bytes=-1", ByteRange(9, 10)),
        ("bytes=-10", ByteRange(0, 10)),
        ("bytes=-11", ByteRange(0, 10)),
        ("bytes=-", None),
        ("bytes=", None),
        ("bytes=5-4", None),
        ("bytes=0-1,3-4", None),
        ("bytes=a-b", None),
        ("bytes=" + "9" * 30 + "-", None),
        ("Bytes 0-1", None),
    ],
)
def test_ranges(field: str | None, expected: ByteRange | None) -> None:
    assert requested_range(field, 10) == expected


@pytest.mark.parametrize("field", ["bytes=10-", "bytes=10-20", "bytes=-0"])
def test_ranges_beyond_the_end(field: str) -> None:
    with pytest.raises(Unsatisfiable):
        requested_range(field, 10)


def test_how_a_range_is_told() -> None:
    part = ByteRange(2, 5)
    assert (part.length, part.header(10)) == (3, "bytes 2-4/10")


@pytest.mark.parametrize(
    ("if_range", "age", "expected"),
    [
        (None, 0, True),
        ('"e1"', 0, True),
        ('W/"e1"', 0, False),
        ('"x"', 0, False),
        (SAME, 60, True),
        (SAME, 1, False),
        (EARLIER, 60, False),
        ("nonsense", 60, False),
    ],
)
def test_if_range(if_range: str | None, age: int, expected: bool) -> None:
    assert range_applies(if_range, CURRENT, THEN + timedelta(seconds=age)) is expected
