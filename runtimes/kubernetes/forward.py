"""Connections to ports through the node: ``portforward`` over WebSocket.

For images in which no program can connect.  ``k8s.io/kubelet/pkg/cri/streaming/portforward``: two
channels for each port, data and error; the first two bytes on each are the port number.  Nothing says
that a connection was made, only that it was not; and nothing can end one direction, so a server that
waits for the end of its input waits until the connection is closed.
"""

from __future__ import annotations

from collections.abc import Sequence
from signal import Signals

import trio

from relay.carrier import Buffer
from relay.endpoint import Channel, StartError
from relay.websocket import WebSocket
from runtimes.exec_inside.keeper import Keeper
from runtimes.exec_inside.opening import Opened
from runtimes.exec_inside.process import Exec
from runtimes.exec_inside.scripts import no_connection
from runtimes.kubernetes.api import KubeApi
from runtimes.kubernetes.channels import V4
from runtimes.kubernetes.errors import KubeError
from runtimes.kubernetes.exec import KubeExec

SETTLE_SECONDS = 0.3
"""How long the node has to tell that nobody listens; it has no way to tell the opposite."""

_DATA, _ERROR = 0, 1
_PORT_BYTES = 2
_MAX_ERROR_BYTES = 4096


class ForwardExec(KubeExec):
    """A forwarded connection, in the shape of a process: input, output, 0 or 1 at the end."""

    def __init__(self, websocket: WebSocket) -> None:
        super().__init__(websocket, framed=False)
        self._skip = {_DATA: _PORT_BYTES, _ERROR: _PORT_BYTES}
        self._error = bytearray()

    def _is_over(self) -> bool:
        return not self._error and self._websocket.peer_close is not None

    def _take(self, number: int, data: Buffer) -> None:
        if number not in self._skip:
            return
        skipped = min(self._skip[number], len(data))
        self._skip[number] -= skipped
        data = memoryview(data)[skipped:]
        if number == _ERROR:
            self._error += data[: _MAX_ERROR_BYTES - len(self._error)]
        elif data:
            self._pieces.append((Channel.OUTPUT, data))

    async def receive(self) -> Sequence[tuple[Channel, Buffer]]:
        """As `Exec.receive`; an error of the node's breaks the connection."""
        pieces: Sequence[tuple[Channel, Buffer]] = ()
        try:
            pieces = await super().receive()
        except trio.BrokenResourceError:
            if not self._error:
                raise
        if self._error and not pieces:
            raise trio.BrokenResourceError(self._error.decode("utf-8", "replace").strip())
        return pieces

    async def exit_code(self) -> int | None:
        """As `Exec.exit_code`: 0 once the output has ended in order, 1 if it broke."""
        await trio.lowlevel.checkpoint()
        if self._is_over():
            return 0
        return 1 if self._broken or self._closed or self._error else None


class ForwardKeeper(Keeper):
    """Stands in for the keeper: a connection has no process; what would end one closes it."""

    def __init__(self, forward: Exec) -> None:
        self._forward = forward

    async def signal(self, number: Signals, pid: int) -> None:
        """As `Keeper.signal`: only signals that end it are ever sent."""
        del number, pid
        await self._forward.aclose()

    async def sweep(self, number: int, pid: int) -> int:
        """As `Keeper.sweep`: afterwards nothing is left."""
        del number, pid
        await self._forward.aclose()
        return 0


async def open_forward(api: KubeApi, pod: str, port: int, nursery: trio.Nursery) -> Opened:
    """Connect to a port of a pod; the connection is served in `nursery`.

    Raises:
      StartError: it cannot be reached, and why.

    Cancellation: nothing is left open.
    """
    target = f"port {port}"
    try:
        websocket = await api.open_websocket(pod, "portforward", [("ports", str(port))], (V4,))
    except KubeError as error:
        raise StartError(f"{target}: {error}") from error
    forward = ForwardExec(websocket)
    early = b""
    try:
        with trio.move_on_after(SETTLE_SECONDS):
            early = b"".join(bytes(piece) for _, piece in await forward.receive())
    except trio.BrokenResourceError as error:
        await forward.aclose()
        if "refused" in str(error):
            raise StartError(no_connection("refused", target)) from error
        raise StartError(f"{target}: {error}") from error
    except BaseException:
        await forward.aclose()
        raise
    nursery.start_soon(forward.run)
    return Opened(forward, 0, {Channel.OUTPUT: early})
