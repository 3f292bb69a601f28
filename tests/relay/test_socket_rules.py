from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.endpoint import SocketTarget
from relay.socket_rules import MAX_CHARACTERS, MAX_ITEMS, SocketRules

PORTS = st.integers(1, 65535)
RANGES = st.tuples(PORTS, PORTS).map(lambda pair: f"{min(pair)}-{max(pair)}")
PATHS = st.sampled_from(["/run/vnc", "/run/x", "/"])
ITEMS = st.lists(PORTS | RANGES | PATHS, max_size=20)


@pytest.mark.parametrize(
    ("items", "ranges", "shown"),
    [
        ([], (), "none"),
        ([8080], ((8080, 8080),), "8080"),
        (["8080"], ((8080, 8080),), "8080"),
        (["3000-3999", 22], ((22, 22), (3000, 3999)), "22, 3000-3999"),
        ([1, 2, "3-5", "4-9", 11], ((1, 9), (11, 11)), "1-9, 11"),
        (["1-65535", 5, "/b", "/a"], ((1, 65535),), "1-65535, /a, /b"),
    ],
)
def test_what_is_written(
    items: list[object], ranges: tuple[tuple[int, int], ...], shown: str
) -> None:
    rules = SocketRules.parse(items)
    assert rules.ranges == ranges
    assert str(rules) == shown


@pytest.mark.parametrize(
    "item",
    [0, 65536, -1, True, None, 1.5, "", "x", "1-", "-1", "2-1", "0-5", "1-65536", "1-2-3", " 1"]
    + ["1 - 2", "123456", "٣", b"1", [1], "run/vnc", "/a\0b"],
)
def test_what_is_wrong_is_named(item: object) -> None:
    with pytest.raises(ValueError, match=r"port|NUL") as caught:
        SocketRules.parse([8080, item])
    assert repr(item) in str(caught.value)


def test_there_are_not_too_many() -> None:
    SocketRules.parse(range(1, 2 * MAX_ITEMS, 2))
    with pytest.raises(ValueError, match=f"at most {MAX_ITEMS}"):
        SocketRules.parse(range(1, 2 * MAX_ITEMS + 2, 2))
    with pytest.raises(ValueError, match=f"more than {MAX_CHARACTERS} characters"):
        SocketRules.parse(["/" + "x" * MAX_CHARACTERS])


def test_what_is_allowed() -> None:
    rules = SocketRules.parse([22, "3000-3999", "/run/vnc.sock"])
    for port in (22, 3000, 3500, 3999):
        assert rules.allows(SocketTarget(port))
    for port in (1, 21, 23, 2999, 4000, 65535):
        assert not rules.allows(SocketTarget(port))
    assert rules.allows(SocketTarget(path="/run/vnc.sock"))
    for path in ("/run/vnc", "/run/./vnc.sock", "/run/x/../vnc.sock", "vnc.sock", "/run/VNC.sock"):
        assert not rules.allows(SocketTarget(path=path))
    assert not SocketRules().allows(SocketTarget(80))


@given(ITEMS)
def test_they_are_read_back_as_they_are(items: list[int | str]) -> None:
    rules = SocketRules.parse(items)
    assert SocketRules.parse(rules.items()) == rules


@given(ITEMS, ITEMS, PORTS)
def test_what_covers_allows_as_much(
    some: list[int | str], others: list[int | str], port: int
) -> None:
    one, other = SocketRules.parse(some), SocketRules.parse(others)
    both = SocketRules.parse([*some, *others])
    assert both.covers(one)
    assert both.covers(other)
    target = SocketTarget(port)
    assert both.allows(target) == (one.allows(target) or other.allows(target))
    if one.covers(other) and other.allows(target):
        assert one.allows(target)
