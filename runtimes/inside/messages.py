"""What the server and the init of a sandbox say to each other; without I/O.

They share a connected Unix socket.  A message is its length (4 bytes, big-endian) and a JSON object.
Descriptors travel beside the bytes (SCM_RIGHTS), with the first byte of their message, whose ``fds``
says how many they are: so they arrive no later than the message, and in its order.

From the server; what has an ``id`` is answered by a ``reply`` with that number:

==========  ==================================================================================
``do``      with; and the reply
==========  ==================================================================================
enter       ``path``: where processes start.  Reply: ``path``, absolute
start       ``kind`` (``"pty"`` or ``"exec"``), ``command``, ``environment``, ``directory``
            (absolute, or None), ``size`` (columns, rows).  Reply: ``pid`` and the terminal's
            master, or our ends of standard input, output and error
socket      ``family`` ``"ipv4"`` or ``"ipv6"``.  Reply: a TCP socket, not connected: whoever
            connects it does so in the network that it was made in
connect     ``path`` of a Unix socket.  Reply: a connected socket, or ``again``: its backlog is full
signal      ``pid``, ``number``: to the process group of a child.  No reply
strike      ``pid``, ``numbers``: to every process of the session of that child; None: to every
            process there is.  Reply: ``count``, how many there were
release     ``pid``: forget an ended child.  No reply
==========  ==================================================================================

From the init: ``hello`` (a list of the login shells there are) once; a ``reply`` with the above or
an ``error`` for the user; and ``exited`` with the pid of a child and its ``code`` or the number of
the ``signal`` that ended it.
"""

from __future__ import annotations

import json
import struct
from typing import Any

MAX_BYTES = 4 * 1024 * 1024
"""The largest message; more than Linux lets a command with its environment be."""

MAX_FDS = 3
"""Descriptors that come with one message, at most."""

RECEIVE_BYTES = 64 * 1024

Message = dict[str, Any]

_LENGTH = struct.Struct(">I")


class MalformedMessage(Exception):
    """The other side does not speak this protocol."""


class MessageTooLong(Exception):
    """It has more than `MAX_BYTES` bytes."""


def encode(message: Message) -> bytes:
    """Return the bytes of `message`.

    Raises:
      MessageTooLong: it is too long.
    """
    # Escaped ASCII: file names that are no UTF-8 travel as lone surrogates.
    body = json.dumps(message, separators=(",", ":")).encode("ascii")
    if len(body) > MAX_BYTES:
        raise MessageTooLong(f"{len(body)} bytes are more than {MAX_BYTES}")
    return _LENGTH.pack(len(body)) + body


class Decoder:
    """Turns the bytes of one direction into messages.

    `max_bytes` bounds a message, and so what is held.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Take bytes; return the messages that are complete now.

        Raises:
          MalformedMessage: these are no messages; nothing can follow.
        """
        self._buffer += data
        messages = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > self._max_bytes:
                raise MalformedMessage(f"a message of {length} bytes")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            messages.append(_decode(bytes(self._buffer[_LENGTH.size : end])))
            del self._buffer[:end]
        return messages


def _decode(body: bytes) -> Message:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedMessage("a message that is no JSON") from error
    if not isinstance(message, dict):
        raise MalformedMessage("a message that is no object")
    fds = message.get("fds", 0)
    if type(fds) is not int or not 0 <= fds <= MAX_FDS:
        raise MalformedMessage("a message with an impossible number of descriptors")
    return message
