"""Opening the port."""

from __future__ import annotations

import errno
import socket

import pytest
import trio

from proxy.listener import ListenError, bound_port, open_listeners


async def close(listeners: list[trio.SocketListener]) -> None:
    for listener in listeners:
        await listener.aclose()


async def test_a_free_port() -> None:
    listeners = await open_listeners("127.0.0.1", 0)
    assert bound_port(listeners) > 0
    with pytest.raises(ListenError, match=r"is in use.*--port"):
        await open_listeners("127.0.0.1", bound_port(listeners))
    await close(listeners)


async def test_all_addresses_share_one_port() -> None:
    listeners = await open_listeners("localhost", 0)
    ports = {listener.socket.getsockname()[1] for listener in listeners}
    assert ports == {bound_port(listeners)}
    await close(listeners)


async def test_a_port_that_is_taken_on_another_address_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[int] = []
    original = trio.open_tcp_listeners

    async def open_two(port: int, **options: object) -> list[trio.SocketListener]:
        opened.append(port)
        if len(opened) == 2:
            raise OSError(errno.EADDRINUSE, "in use")
        return [*await original(port, host="127.0.0.1"), *await original(port, host="127.0.0.2")]

    monkeypatch.setattr(trio, "open_tcp_listeners", open_two)
    listeners = await open_listeners("both", 0)
    assert len({listener.socket.getsockname()[1] for listener in listeners}) == 1
    assert opened[0] == opened[2] == 0
    assert opened[1] != 0
    await close(listeners)


async def test_impossible_places(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ListenError, match="no such address; check --host"):
        await open_listeners("192.0.2.1", 0)
    error: OSError = PermissionError(errno.EACCES, "denied")

    async def fail(*_arguments: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(trio, "open_tcp_listeners", fail)
    with pytest.raises(ListenError, match="choose a port above 1023"):
        await open_listeners("127.0.0.1", 80)
    error = OSError(errno.ENOBUFS, "no buffer space")
    with pytest.raises(ListenError, match="no buffer space"):
        await open_listeners("127.0.0.1", 80)
    error = socket.gaierror(socket.EAI_NONAME, "unknown name")
    with pytest.raises(ListenError, match=r"no such host .*check --host"):
        await open_listeners("nowhere.invalid", 0)
