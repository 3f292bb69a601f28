from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from relay.endpoint import TerminalSize
from tests.testing.server_process import clean_environment
from trunkline.cli.terminal import (
    Descriptor,
    ModeTracker,
    RawTerminal,
    occupy_standard_descriptors,
    terminal_size,
)


@pytest.fixture
def pty() -> Iterator[tuple[int, int]]:
    master, slave = os.openpty()
    yield master, slave
    for descriptor in (master, slave):
        try:
            os.close(descriptor)
        except OSError:
            continue  # the test closed it


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        try:
            os.close(descriptor)
        except OSError:
            continue


# ---------------------------------------------------------------- Descriptor


async def test_a_pipe(pipe: tuple[int, int]) -> None:
    reading, writing = Descriptor(pipe[0]), Descriptor(pipe[1])
    assert not reading.is_terminal
    data = os.urandom(1_000_000)
    read = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writing.write_all, data)
        with trio.fail_after(20):
            while len(read) < len(data):
                read += await reading.read()
    assert read == data
    os.close(pipe[1])
    assert await reading.read() == b""


async def test_it_stays_in_blocking_mode(pipe: tuple[int, int]) -> None:
    """Other programs share it."""
    await Descriptor(pipe[1]).write_all(b"x" * 10)
    await Descriptor(pipe[0]).read()
    for descriptor in pipe:
        assert not fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_NONBLOCK


async def test_nobody_reads_the_pipe(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    for size in (1, 100_000):
        with pytest.raises(BrokenPipeError):
            await Descriptor(pipe[1]).write_all(bytes(size))


async def test_waiting_for_a_pipe_can_be_cancelled(pipe: tuple[int, int]) -> None:
    with trio.move_on_after(0.01) as scope:
        await Descriptor(pipe[0]).read()
    assert scope.cancelled_caught
    with trio.move_on_after(0.01) as scope:
        await Descriptor(pipe[1]).write_all(bytes(1_000_000))
    assert scope.cancelled_caught
    os.close(pipe[0])  # lets the thread go that still writes


async def test_files(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        target = Descriptor(file.fileno())
        await target.write_all(b"one ")
        await target.write_all(bytes(100_000))
    assert path.read_bytes() == b"one " + bytes(100_000)
    with path.open("rb") as file:
        source = Descriptor(file.fileno())
        data = b""
        while piece := await source.read():
            data += piece
    assert len(data) == 100_004


async def test_a_terminal_that_is_hung_up(pty: tuple[int, int]) -> None:
    master, slave = pty
    terminal = Descriptor(slave)
    assert terminal.is_terminal
    await terminal.write_all(b"x")
    os.close(master)
    with trio.fail_after(10):
        assert await terminal.read() == b""
        with pytest.raises(BrokenPipeError):
            await terminal.write_all(b"y")


# ---------------------------------------------------------------- the terminal


def test_size(pty: tuple[int, int], pipe: tuple[int, int]) -> None:
    master, slave = pty
    termios.tcsetwinsize(master, (17, 91))
    assert terminal_size(Descriptor(slave)) == TerminalSize(columns=91, rows=17)
    termios.tcsetwinsize(master, (0, 0))
    assert terminal_size(Descriptor(slave)) is None
    assert terminal_size(Descriptor(pipe[0])) is None


def test_raw_and_back(pty: tuple[int, int]) -> None:
    slave = pty[1]
    before = termios.tcgetattr(slave)
    with pytest.raises(ZeroDivisionError), RawTerminal(Descriptor(slave)):
        assert not termios.tcgetattr(slave)[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
        raise ZeroDivisionError
    assert termios.tcgetattr(slave) == before


def test_raw_where_there_is_no_terminal(pipe: tuple[int, int]) -> None:
    with RawTerminal(Descriptor(pipe[0])):
        pass


def test_a_terminal_that_goes_away_while_raw(pty: tuple[int, int]) -> None:
    with RawTerminal(Descriptor(pty[1])):
        os.close(pty[0])


# ---------------------------------------------------------------- ModeTracker


@pytest.mark.parametrize(
    ("output", "undo"),
    [
        (b"", b""),
        (b"plain", b""),
        (b"\x1b[?1049h", b"\x1b[?1049l\x1b[0m"),
        (b"\x1b[?1049h\x1b[?1049l", b""),
        (b"\x1b[?25l", b"\x1b[?25h\x1b[0m"),
        (b"\x1b[?25l\x1b[?25h", b""),
        (b"\x1b[?1000;1006h", b"\x1b[?1000l\x1b[?1006l\x1b[0m"),
        (b"\x1b[?;1000;h", b"\x1b[?1000l\x1b[0m"),
        (b"\x1b[1000h\x1b[?1000$p", b""),
        (b"\x1b[?7l", b"\x1b[?7h\x1b[0m"),
    ],
)
def test_modes_are_undone(output: bytes, undo: bytes) -> None:
    tracker = ModeTracker()
    tracker.feed(output)
    assert tracker.reset() == undo
    assert tracker.reset() == b""


@given(
    st.lists(st.sampled_from([b"\x1b[?1049h", b"\x1b[?1;25l", b"\x1b[?25h", b"x", b"\x1b"])),
    st.integers(min_value=1, max_value=5),
)
def test_modes_in_pieces(parts: list[bytes], size: int) -> None:
    output = b"".join(parts)
    whole, pieces = ModeTracker(), ModeTracker()
    whole.feed(output)
    for start in range(0, len(output), size):
        pieces.feed(output[start : start + size])
    assert pieces.reset() == whole.reset()


def test_modes_of_rubbish_are_bounded() -> None:
    tracker = ModeTracker()
    for n in range(100_000):
        tracker.feed(b"\x1b[?%dh" % n)
    tracker.feed(b"\x1b[?" + b"9" * 5000 + b"h")
    assert len(tracker.reset()) < 20_000


# ---------------------------------------------------------------- closed descriptors


def test_closed_descriptors_are_occupied(tmp_path: Path) -> None:
    """In a process of its own, since it is about the first three descriptors."""
    script = (
        "from trunkline.cli.terminal import occupy_standard_descriptors as o; import os, sys;"
        "o(); f = os.open('/', os.O_RDONLY);"
        "assert f > 2, f; assert None not in (sys.stdin, sys.stdout, sys.stderr);"
        "os.write(int(os.environ['OUT']), b'good')"
    )
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        reading, writing = os.pipe()
        done = subprocess.run(
            ["/bin/sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, script],
            env={**clean_environment(tmp_path / "home"), "OUT": str(writing)},
            pass_fds=(writing,),
            timeout=30,
            check=False,
        )
        os.close(writing)
        with os.fdopen(reading, "rb") as file:
            assert file.read() == b"good", closed
        assert done.returncode == 0
    occupy_standard_descriptors()  # does nothing where all is well
