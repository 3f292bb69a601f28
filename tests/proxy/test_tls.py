"""TLS: what the context allows, and HTTP/1.1 and WebSockets over it."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trio
import trio.testing
from websockets.sync.client import connect

from proxy.config import FrontConfig
from proxy.tls import TlsError, server_context
from tests.testing.certificates import Authority
from tests.testing.front_world import open_front


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def test_unusable_files(tmp_path: Path, authority: Authority) -> None:
    with pytest.raises(TlsError, match=r"cannot read the certificate .*No such file.*--tls-cert"):
        server_context(tmp_path / "none.pem", authority.key)
    with pytest.raises(TlsError, match=r"cannot read the private key .*--tls-key"):
        server_context(authority.certificate, tmp_path / "none.pem")
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("not PEM")
    with pytest.raises(TlsError, match="belong together"):
        server_context(authority.certificate, garbage)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(TlsError, match="belong together"):
        server_context(authority.certificate, Authority(other).key)


async def test_http_1_1_over_tls(authority: Authority) -> None:
    context = server_context(authority.certificate, authority.key)
    async with open_front(ssl_context=context) as world:
        for alpn in (["http/1.1"], []):
            stream = await trio.open_ssl_over_tcp_stream(
                "127.0.0.1",
                world.port,
                https_compatible=True,
                ssl_context=authority.client_context(*alpn),
            )
            request = b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % world.port
            for _ in range(2):
                await stream.send_all(request)
                assert b"hello" in await stream.receive_some()
            assert world.app.scopes[-1]["scheme"] == "https"
            await stream.aclose()


async def test_old_versions_are_refused(authority: Authority) -> None:
    context = server_context(authority.certificate, authority.key)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    old = authority.client_context()
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    async with open_front(ssl_context=context) as world:
        stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", world.port, ssl_context=old)
        with pytest.raises(trio.BrokenResourceError):
            await stream.do_handshake()
        await trio.aclose_forcefully(stream)


async def test_plain_http_on_the_tls_port_harms_nobody(authority: Authority) -> None:
    context = server_context(authority.certificate, authority.key)
    async with open_front(ssl_context=context) as world:
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + bytes(100), bytes(1000)):
            client = await world.connect()
            await client.send(garbage)
            assert not (await client.read_rest()).startswith(b"HTTP")


async def test_a_slow_tls_handshake_is_ended(
    authority: Authority, autojump_clock: trio.testing.MockClock
) -> None:
    context = server_context(authority.certificate, authority.key)
    async with open_front(ssl_context=context) as world:
        client = await world.connect()
        began = trio.current_time()
        await client.send(b"\x16\x03\x01")
        assert await client.read_rest() == b""
        assert trio.current_time() - began == pytest.approx(10, abs=0.5)


async def test_a_websocket_over_tls(authority: Authority) -> None:
    big = bytes(range(256)) * 4000

    def talk(url: str) -> None:
        with connect(
            f"{url}/ws/echo", ssl=authority.client_context(), max_size=None, ping_interval=None
        ) as ws:
            ws.send(big)
            assert ws.recv(timeout=20) == big
            ws.send("text")
            assert ws.recv(timeout=20) == "text"
            ws.ping("hello").wait(20)

    context = server_context(authority.certificate, authority.key)
    async with open_front(ssl_context=context) as world:
        with trio.fail_after(60):
            await trio.to_thread.run_sync(talk, world.ws_url)


async def test_connections_over_the_limit_are_closed(authority: Authority) -> None:
    context = server_context(authority.certificate, authority.key)
    config = FrontConfig(max_connections=0)
    async with open_front(ssl_context=context, config=config) as world:
        client = await world.connect()
        assert await client.read_rest() == b""
