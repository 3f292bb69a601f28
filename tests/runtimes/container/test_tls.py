"""TLS whose directions end one by one."""

from __future__ import annotations

import ssl

import pytest
import trio
import trio.testing
import trustme

from runtimes.container.tls import TlsStream
from tests.testing.socket_servers import echo, open_server

SIZE = 1_000_000


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def contexts(authority: trustme.CA) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("engine.test").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return client, server


async def connect(port: int | None, context: ssl.SSLContext, host: str) -> TlsStream:
    stream = TlsStream(await trio.open_tcp_stream("127.0.0.1", port or 0), context, host)
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def test_the_input_ends_and_the_output_goes_on(authority: trustme.CA) -> None:
    client, server = contexts(authority)

    async def answer(plain: trio.SocketStream) -> None:
        stream = trio.SSLStream(plain, server, server_side=True)
        got = bytearray()
        while data := await stream.receive_some(65536):
            got += data
        await stream.send_all(bytes(reversed(got)))
        await stream.aclose()

    with trio.fail_after(30):
        async with open_server(answer) as target:
            stream = await connect(target.port, client, "engine.test")
            data = bytes(range(250)) * (SIZE // 250)
            await stream.send_all(data)
            await stream.send_eof()
            await stream.send_eof()
            got = b"".join([piece async for piece in stream])
            assert got == bytes(reversed(data))
            with pytest.raises(trio.ClosedResourceError):
                await stream.send_all(b"more")
            await stream.aclose()


async def test_a_certificate_that_is_not_trusted(authority: trustme.CA) -> None:
    client, server = contexts(authority)

    async def answer(plain: trio.SocketStream) -> None:
        with pytest.raises(trio.BrokenResourceError):
            await trio.SSLStream(plain, server, server_side=True).do_handshake()

    for context, host in ((client, "other.test"), (ssl.create_default_context(), "engine.test")):
        async with open_server(answer) as target:
            with pytest.raises(trio.BrokenResourceError, match="certificate"):
                await connect(target.port, context, host)


async def test_who_speaks_no_tls(authority: trustme.CA) -> None:
    client, _ = contexts(authority)
    async with open_server(echo) as target:
        with pytest.raises(trio.BrokenResourceError):
            await connect(target.port, client, "engine.test")


async def test_a_cancelled_send_breaks_it(authority: trustme.CA) -> None:
    client, server = contexts(authority)

    async def never_read(plain: trio.SocketStream) -> None:
        stream = trio.SSLStream(plain, server, server_side=True)
        await stream.do_handshake()
        await trio.sleep_forever()

    with trio.fail_after(30):
        async with open_server(never_read) as target:
            stream = await connect(target.port, client, "engine.test")
            with trio.move_on_after(0.3) as scope:
                while True:
                    await stream.send_all(bytes(SIZE))
            assert scope.cancelled_caught
            with pytest.raises(trio.BrokenResourceError):
                await stream.send_all(b"x")
            await stream.aclose()
