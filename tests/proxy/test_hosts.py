"""The Host and Origin allow-lists."""

from __future__ import annotations

import pytest

from proxy.hosts import HostPolicy

POLICY = HostPolicy.for_hosts(
    ["Shell.example.com", "10.0.0.1:8080"],
    scheme="https",
    origins=["https://Console.example.com/"],
)


def test_loopback() -> None:
    policy = HostPolicy.loopback(8080)
    assert policy.hosts == {"127.0.0.1:8080", "localhost:8080", "[::1]:8080"}
    assert policy.origins == {f"http://{host}" for host in policy.hosts}
    assert HostPolicy.loopback(80).hosts == {"127.0.0.1", "localhost", "[::1]"}
    assert "https://localhost" in HostPolicy.loopback(443, scheme="https").origins
    assert "localhost:80" in HostPolicy.loopback(80, scheme="https").hosts


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ([b"shell.example.com"], None),
        ([b"SHELL.example.com"], None),
        ([b" 10.0.0.1:8080 "], None),
        ([b"10.0.0.1"], 421),
        ([b"10.0.0.1:80800"], 421),
        ([b"shell.example.com:443"], 421),
        ([b"shell.example.com."], 421),
        ([b"evil.shell.example.com"], 421),
        ([b"shell.example.com.evil.example"], 421),
        ([b"user@shell.example.com"], 421),
        ([b"\xff\x00<script>"], 421),
        ([b""], 421),
        ([], 400),
        ([b"shell.example.com", b"shell.example.com"], 400),
    ],
)
def test_hosts(values: list[bytes], status: int | None) -> None:
    refused = POLICY.check_host(values)
    assert (refused.status if refused else None) == status
    if refused:
        assert refused.detail.isascii()
        assert refused.detail.isprintable()


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ([], None),
        ([b"https://shell.example.com"], None),
        ([b"https://console.example.com"], None),
        ([b"HTTPS://10.0.0.1:8080"], None),
        ([b"http://shell.example.com"], 403),
        ([b"https://shell.example.com:443"], 403),
        ([b"https://shell.example.com/"], 403),
        ([b"https://shell.example.com.evil.example"], 403),
        ([b"null"], 403),
        ([b""], 403),
        ([b"https://shell.example.com", b"https://shell.example.com"], 403),
    ],
)
def test_origins(values: list[bytes], status: int | None) -> None:
    for method, websocket in (("POST", False), ("DELETE", False), ("GET", True)):
        refused = POLICY.check_origin(values, method, websocket=websocket)
        assert (refused.status if refused else None) == status
    for method in ("GET", "HEAD", "OPTIONS"):
        assert POLICY.check_origin(values, method) is None


def test_the_host_is_judged_first() -> None:
    refused = POLICY.check("POST", [b"evil.example"], [b"http://evil.example"])
    assert refused is not None
    assert refused.status == 421
    assert POLICY.check("POST", [b"shell.example.com"], []) is None
