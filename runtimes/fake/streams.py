"""What a little program reads and writes: bounded buffers, and a terminal's manners."""

from __future__ import annotations

from relay.endpoint import Channel, TerminalSize

BUFFER_BYTES = 64 * 1024
"""Bound of each buffer, in bytes: what a Linux pipe holds."""

_LONGEST_LINE = 4095  # as the kernel's line discipline: what exceeds it is dropped

_INTERRUPT, _END_OF_INPUT, _QUIT = 0x03, 0x04, 0x1C
_LINE_ENDS = b"\r\n"
_ERASES = b"\b\x7f"


class Streams:
    """Standard input, output and error.  `size` None means: no terminal.

    A full output buffer stops the program; a full input buffer stops who sends.
    """

    def __init__(self, size: TerminalSize | None) -> None:
        self.size = size
        self.raw = False
        self.input = bytearray()
        self.input_ended = False
        self.input_closed = False
        self.outputs = {Channel.OUTPUT: bytearray(), Channel.ERROR: bytearray()}

    @property
    def _cooked(self) -> bool:
        return self.size is not None and not self.raw

    def _output(self, channel: Channel) -> bytearray:
        return self.outputs[Channel.OUTPUT if self.size is not None else channel]

    def room(self, channel: Channel = Channel.OUTPUT) -> int:
        """Return how many bytes can be written now."""
        free = BUFFER_BYTES - len(self._output(channel))
        return free // 2 if self._cooked else free  # a line end becomes two bytes

    def write(self, data: bytes, channel: Channel = Channel.OUTPUT) -> None:
        """Write `data`, which must not exceed `room`."""
        if len(data) > self.room(channel):
            raise ValueError("more was written than there is room for")
        self._output(channel).extend(data.replace(b"\n", b"\r\n") if self._cooked else data)


class LineDiscipline:
    """Turns keystrokes into lines: echo, erasing, ^C, ^D."""

    def __init__(self) -> None:
        self._line = bytearray()

    def feed(self, typed: bytearray, streams: Streams) -> str | None:
        """Move from `typed` to the input what there is room for; stop at a signal and return it."""
        while typed and len(streams.input) <= BUFFER_BYTES - _LONGEST_LINE:
            if streams.raw:
                streams.input += typed[:_LONGEST_LINE]
                del typed[:_LONGEST_LINE]
                continue
            key = typed.pop(0)
            if key in (_INTERRUPT, _QUIT):
                self._line.clear()
                _echo(b"^C\n" if key == _INTERRUPT else b"^\\\n", streams)
                return "INT" if key == _INTERRUPT else "QUIT"
            self._type(key, streams)
        return None

    def _type(self, key: int, streams: Streams) -> None:
        if key in _LINE_ENDS:
            _echo(b"\n", streams)
            streams.input += self._line + b"\n"
            self._line.clear()
        elif key == _END_OF_INPUT:
            streams.input_ended = not self._line
            streams.input += self._line
            self._line.clear()
        elif key in _ERASES:
            if self._line:
                while self._line.pop() & 0xC0 == 0x80 and self._line:
                    pass  # the rest of a UTF-8 character
                _echo(b"\b \b", streams)
        elif len(self._line) < _LONGEST_LINE:
            self._line.append(key)
            _echo(bytes([key]), streams)


def _echo(data: bytes, streams: Streams) -> None:
    """Show what was typed.  Without room it isn't shown: ^C must pass while output is blocked."""
    if len(data) <= streams.room():
        streams.write(data)
