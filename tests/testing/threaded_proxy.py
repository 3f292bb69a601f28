"""The cutting proxy for tests that are not asynchronous (Playwright's are not)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from tests.testing.cutting_proxy import Cut, CuttingProxy, open_cutting_proxy

READY_SECONDS = 10


class ThreadedProxy:
    """A cutting proxy that runs in a thread of its own."""

    def __init__(self, proxy: CuttingProxy, token: trio.lowlevel.TrioToken) -> None:
        self._proxy = proxy
        self._token = token

    def cut(self, how: Cut = Cut.RESET) -> None:
        """Cut every connection there is now."""
        trio.from_thread.run_sync(self._proxy.cut, how, trio_token=self._token)


@contextmanager
def threaded_proxy(listener: socket.socket, target_port: int) -> Iterator[ThreadedProxy]:
    """Proxy from `listener` to `target_port` of this machine as long as the block lasts."""
    ready = threading.Event()
    proxies: list[tuple[ThreadedProxy, trio.CancelScope]] = []

    async def main() -> None:
        with trio.CancelScope() as scope:
            async with open_cutting_proxy(listener, target_port) as proxy:
                token = trio.lowlevel.current_trio_token()
                proxies.append((ThreadedProxy(proxy, token), scope))
                ready.set()
                await trio.sleep_forever()

    thread = threading.Thread(target=trio.run, args=(main,))
    thread.start()
    assert ready.wait(READY_SECONDS)
    threaded, scope = proxies[0]
    try:
        yield threaded
    finally:
        trio.from_thread.run_sync(scope.cancel, trio_token=threaded._token)
        thread.join(READY_SECONDS)
        assert not thread.is_alive()
