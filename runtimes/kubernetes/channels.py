"""The channels of ``exec`` and ``portforward`` over WebSocket, without I/O.

Kubernetes, ``k8s.io/apimachinery/pkg/util/remotecommand`` and ``k8s.io/apiserver/pkg/util/wsstream``:
each binary message begins with one byte, the number of its channel.  v5 is v4 and one message more: 255
and the number of a channel end that channel, which is how input ends.  In v4 it cannot.
"""

from __future__ import annotations

import json
from enum import IntEnum

from relay.carrier import Buffer
from relay.endpoint import TerminalSize

V5 = "v5.channel.k8s.io"
V4 = "v4.channel.k8s.io"

MAX_STATUS_BYTES = 64 * 1024
"""How much of what comes on the error channel is kept."""


class Number(IntEnum):
    """The channels of ``exec``."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    ERROR = 3
    RESIZE = 4
    CLOSE = 255


class ChannelError(Exception):
    """The API server broke the protocol, or says in it that it failed."""


def input_message(data: Buffer) -> bytes:
    """Return the message that carries input."""
    return b"\0" + data


def resize_message(size: TerminalSize) -> bytes:
    """Return the message that sets the size of the terminal."""
    content = json.dumps({"Width": size.columns, "Height": size.rows})
    return bytes((Number.RESIZE,)) + content.encode()


def end_of_input_message() -> bytes:
    """Return the message that ends the input; v5 only."""
    return bytes((Number.CLOSE, Number.STDIN))


class Splitter:
    """Takes the channel numbers off messages, which arrive in pieces.  Holds nothing else."""

    def __init__(self) -> None:
        self._channel: int | None = None

    def feed(self, data: Buffer, *, final: bool) -> tuple[int, Buffer] | None:
        """Return the channel and bytes of a piece; None where it has none.

        `final` marks the last piece of a message.

        Raises:
          ChannelError: a message is empty, so it has no channel.
        """
        channel = self._channel
        if channel is None:
            if not data:
                if final:
                    raise ChannelError("the API server sent a message without a channel")
                return None
            channel, data = data[0], memoryview(data)[1:]
        self._channel = None if final else channel
        return (channel, data) if data else None


def read_exit_code(status: bytes) -> int:
    """Return the exit code that the ``v1.Status`` on the error channel tells.

    Raises:
      ChannelError: there was none: the process could not be run, or nobody knows.
    """
    try:
        found = json.loads(status)
        if found.get("status") == "Success":
            return 0
        causes = (found.get("details") or {}).get("causes") or []
        if found.get("reason") == "NonZeroExitCode":
            for cause in causes:
                if cause.get("reason") == "ExitCode":
                    return int(cause["message"])
        message = str(found.get("message") or "it does not say why")
    except (ValueError, KeyError, TypeError, AttributeError):
        message = status.decode("utf-8", "replace").strip() or "nothing was told of the exit"
    raise ChannelError(message)
