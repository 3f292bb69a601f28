from __future__ import annotations

import pytest

from api.headers import DEFAULT_HEADERS, content_security_policy


def sources(policy: str, directive: str) -> list[str]:
    (found,) = [part.split() for part in policy.split("; ") if part.split()[0] == directive]
    return found[1:]


def test_everything_is_forbidden_that_is_not_listed() -> None:
    policy = DEFAULT_HEADERS["Content-Security-Policy"]
    assert sources(policy, "default-src") == ["'none'"]
    assert sources(policy, "script-src") == ["'self'"]
    assert sources(policy, "connect-src") == ["'self'"]


@pytest.mark.parametrize(
    ("host", "public_url", "expected"),
    [
        ("a:8080", None, ["ws://a:8080", "wss://a:8080"]),
        ("[::1]", None, ["ws://[::1]", "wss://[::1]"]),
        ("a", "https://b.example/base", ["ws://a", "wss://a", "wss://b.example"]),
        ("a", "https://a", ["ws://a", "wss://a"]),
        (None, "http://b", ["ws://b"]),
        ("*", None, []),
        ("a; script-src *", None, []),
        ("a 'unsafe-eval'", None, []),
    ],
)
def test_where_a_page_may_connect(
    host: str | None, public_url: str | None, expected: list[str]
) -> None:
    policy = content_security_policy(host=host, public_url=public_url)
    assert sources(policy, "connect-src") == ["'self'", *expected]
    assert sources(policy, "script-src") == ["'self'"]
