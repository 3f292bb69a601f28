from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.fields import FieldError
from api.query import Query, parse_time
from api.times import format_time


def test_a_query() -> None:
    query = Query(b"path=a%2Fb+c%C3%A4&mode=644&modified=2001-02-03T04:05:06Z&parents=true&n=7&x=")
    assert query.path() == "a/b cä"
    assert query.mode() == 0o644
    assert query.time() == 981173106 * 10**9
    assert query.flag("parents")
    assert not query.flag("other")
    assert query.flag("other", default=True)
    assert query.flag("x")
    assert query.integer("n", 1, 1, 10) == 7
    assert query.integer("m", 3, 1, 10) == 3


def test_what_was_left_out() -> None:
    query = Query(b"")
    assert (query.mode(), query.time(), query.path(default=".")) == (None, None, ".")


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b"path=%ff", "query"),
        (b"path=\xff", "query"),
        (b"&".join(b"a%d=1" % n for n in range(70)), "query"),
        (b"path=a&path=b", "path"),
    ],
)
def test_bad_queries(raw: bytes, field: str) -> None:
    with pytest.raises(FieldError) as caught:
        Query(raw)
    assert caught.value.field == field


@pytest.mark.parametrize("raw", [b"n=0", b"n=11", b"n=x", b"n=-1", b"n=", b"n=" + b"1" * 30])
def test_bad_numbers(raw: bytes) -> None:
    with pytest.raises(FieldError):
        Query(raw).integer("n", 1, 1, 10)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.5Z", 500_000_000),
        ("1970-01-01t01:00:00+01:00", 0),
        ("2262-04-12T00:00:00.000000001Z", 9223372800000000001),
    ],
)
def test_times(text: str, nanoseconds: int) -> None:
    assert parse_time("t", text) == nanoseconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "1969-12-31T23:59:59Z",
        "2001-13-01T00:00:00Z",
        "2001-01-01",
        "2001-01-01T00:00:00",
        "2001-01-01T00:00:00.0000000001Z",
        "2001-01-01T00:00:00Zx",
    ],
)
def test_bad_times(text: str) -> None:
    with pytest.raises(FieldError):
        parse_time("t", text)


@given(st.integers(min_value=0, max_value=2**62))
def test_times_survive_the_way(nanoseconds: int) -> None:
    assert parse_time("t", format_time(nanoseconds)) == nanoseconds
