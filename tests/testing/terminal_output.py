"""Output as programs write it, and as none does: made from a seed, or recorded from a real one."""

from __future__ import annotations

import fcntl
import os
import pty
import random
import select
import struct
import termios
import time
from collections.abc import Sequence

from relay.endpoint import TerminalSize
from relay.screen import Terminal

WORDS = (
    "hello", "x", "abc def ", "日本語", "é", "🚀", "ñandú", "wide漢", "|-+", "~" * 30,
    "longish text that wraps around the end of a line ", "⠿⡇", "─│┌", "ca\u0301fe\u0301",
)  # fmt: skip
SGR = (
    "0", "1", "2", "3", "4", "7", "9", "22", "24", "27", "31", "42", "97", "101", "38;5;200",
    "48;5;17", "38;2;1;2;3", "48;2;200;100;50", "39", "49", "53", "38:2::9:8:7",
)  # fmt: skip
SETTINGS = (
    "\x1b7", "\x1b8", "\x1bM", "\x1bD", "\x1bE", "\x1bH", "\x1b[r", "\x1b[?7l", "\x1b[?7h", "\x1b[4h",
    "\x1b[4l", "\x1b[?25l", "\x1b[?25h", "\x1b[?1h", "\x1b[?2004h", "\x1b[?1002h\x1b[?1006h", "\x1b=",
    "\x1b[g", "\x1b(0qqx\x1b(B", "\x0e", "\x0f", "\x1b)0", "\x1b[!p", "z\x1b[3b", "\x1b#8",
    "\x1b]2;title\x07", "\x1b[?45h", "\x1b[2'}", "\x1b[1'~", "\x1b[2 @", "\x1b[1 A", "\x1b[?6h",
    "\x1b[?6l", "\x1b]8;;https://example.org/\x1b\\link\x1b]8;;\x1b\\",
)  # fmt: skip
SCREENS = ("\x1b[?1049h", "\x1b[?1049l", "\x1b[?47h", "\x1b[?47l", "\x1bc\x1b[?25h")


def wild_output(chance: random.Random, size: TerminalSize) -> bytes:
    """Return sequences in an order in which no program would write them."""
    pieces = []
    for _ in range(chance.randrange(1, 60)):
        kind = chance.random()
        if kind < 0.35:
            pieces.append(chance.choice(WORDS) * chance.choice((1, 1, 1, 3)))
        elif kind < 0.45:
            pieces.append("\r\n" * chance.choice((1, 1, 2, 5)))
        elif kind < 0.5:
            pieces.append(chance.choice("\r\n\b\t\b"))
        elif kind < 0.62:
            codes = (chance.choice(SGR) for _ in range(chance.randrange(1, 3)))
            pieces.append(f"\x1b[{';'.join(codes)}m")
        elif kind < 0.72:
            row, column = chance.randrange(size.rows + 2), chance.randrange(size.columns + 2)
            pieces.append(f"\x1b[{row};{column}H")
        elif kind < 0.88:
            final = chance.choice("@ABCDEFGIJKLMPSTXZ`adef")
            number = chance.choice(("", "0", "1", "1", "2", "3", "5", "99"))
            if final == "J":
                number = chance.choice(("", "0", "2", "3"))
            elif final == "K":
                number = chance.choice(("", "0", "1", "2"))
            elif final in "IZ":
                number = chance.choice(("", "1", "2"))
            pieces.append(f"\x1b[{number}{final}")
        elif kind < 0.9:
            pieces.append(
                f"\x1b[{chance.randrange(size.rows)};{chance.randrange(1, size.rows + 2)}r"
            )
        elif kind < 0.96:
            pieces.append(chance.choice(SETTINGS))
        else:
            pieces.append(chance.choice(SCREENS))
    return "".join(pieces).encode()


def rows_of(terminal: Terminal) -> list[str]:
    """Return the screen as text; "·" for a cell that was never written."""
    return [text_of(line.cells) for line in terminal.page.lines]


def text_of(cells: Sequence[str]) -> str:
    """Return the cells of a line as text, without what is empty at its end."""
    return "".join(cells).rstrip("\0").replace("\0", "·").replace("\1", "")


def record(
    command: Sequence[str], keys: Sequence[bytes], size: TerminalSize, quiet: float = 0.4
) -> bytes:
    """Run `command` in a terminal, press `keys` one after the other, and return its output.

    Each is pressed when nothing has come for `quiet` seconds; the last output is what comes before
    the next silence.  The program is ended then, if it has not ended by itself.
    """
    pid, master = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", LC_ALL="C.UTF-8", LESS="", LESSSECURE="1")
        try:
            os.execvp(command[0], list(command))
        finally:
            os._exit(127)
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.columns, 0, 0))
    output = bytearray()
    try:
        for key in (*keys, None):
            if not _read_until_quiet(master, output, quiet) or key is None:
                break
            os.write(master, key)
    finally:
        os.close(master)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    return bytes(output)


def _read_until_quiet(master: int, output: bytearray, quiet: float) -> bool:
    """Read what comes; False when the program has ended."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and select.select([master], [], [], quiet)[0]:
        try:
            data = os.read(master, 65536)
        except OSError:  # EIO: hung up
            return False
        if not data:
            return False
        output += data
    return True
