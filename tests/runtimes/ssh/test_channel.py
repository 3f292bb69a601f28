"""The buffers, over a double of the library that treats its window as asyncssh does."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from relay.endpoint import Channel, ExitStatus, TerminalSize
from runtimes.ssh.channel import BUFFER_BYTES, MOST_HELD_BYTES, WINDOW_BYTES, RemoteChannel

PACKET = 32 * 1024


class _Library:
    """Has a window, keeps what comes while it is paused, renews the window with each piece given."""

    def __init__(self, channel: RemoteChannel) -> None:
        self.channel = channel
        self.window = WINDOW_BYTES
        self.kept: list[bytes] = []
        self.is_paused = False
        self.written: list[bytes] = []
        self.log: list[str] = []

    def flood(self) -> int:
        """Let the other side send as much as it may; return how much."""
        sent = 0
        while self.window >= PACKET:
            self.window -= PACKET
            sent += PACKET
            if self.is_paused:
                self.kept.append(bytes(PACKET))
            else:
                self._give(bytes(PACKET))
                if sent > 100 * WINDOW_BYTES:
                    raise AssertionError("nobody pushes back")
        return sent

    def _give(self, data: bytes) -> None:
        if self.window < WINDOW_BYTES / 2:
            self.window = WINDOW_BYTES
        self.channel.feed(data, Channel.OUTPUT)

    @property
    def held(self) -> int:
        return sum(map(len, self.kept)) + self.channel.statistics()[Channel.OUTPUT]

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def write_eof(self) -> None:
        self.log.append("eof")

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False
        while self.kept and not self.is_paused:
            self._give(self.kept.pop(0))

    def resize(self, size: TerminalSize) -> None:
        self.log.append(f"{size.columns}x{size.rows}")

    def close(self) -> None:
        self.log.append("close")

    def abort(self) -> None:
        self.log.append("abort")


@pytest.fixture
def channel() -> RemoteChannel:
    return RemoteChannel()


@pytest.fixture
def library(channel: RemoteChannel) -> _Library:
    library = _Library(channel)
    channel.opened(library)
    return library


async def test_what_is_held_has_a_bound_however_long_it_goes(
    channel: RemoteChannel, library: _Library
) -> None:
    came = taken = most = 0
    while came < 300_000_000:
        came += library.flood()
        most = max(most, library.held)
        taken += len(await channel.receive(Channel.OUTPUT, 50_000))
    assert taken + library.held == came
    assert most <= MOST_HELD_BYTES < 4_000_000


async def test_small_and_large_reads_get_everything(
    channel: RemoteChannel, library: _Library
) -> None:
    for size in (1, 7, 4 * WINDOW_BYTES):
        library.flood()
        assert 1 <= len(await channel.receive(Channel.OUTPUT, size)) <= size
    assert library.held <= MOST_HELD_BYTES


async def test_an_unread_error_output_holds_up_only_when_full(
    channel: RemoteChannel, library: _Library
) -> None:
    channel.feed(b"warning", Channel.ERROR)
    for _ in range(50):
        library.flood()
        while channel.statistics()[Channel.OUTPUT]:
            channel.take(Channel.OUTPUT, WINDOW_BYTES)
    assert not library.is_paused
    channel.feed(bytes(BUFFER_BYTES), Channel.ERROR)
    assert library.is_paused


async def test_the_end_comes_after_the_last_byte(channel: RemoteChannel, library: _Library) -> None:
    channel.feed(b"last", Channel.OUTPUT)
    channel.exited(ExitStatus(code=3))
    channel.end_output()
    channel.lost(None)
    assert await channel.receive(Channel.OUTPUT, 3) == b"las"
    assert await channel.receive(Channel.OUTPUT, 3) == b"t"
    assert await channel.receive(Channel.OUTPUT, 3) == b""
    assert channel.status == ExitStatus(code=3)
    assert channel.is_closed


async def test_a_loss_says_why(channel: RemoteChannel, library: _Library) -> None:
    channel.feed(b"last", Channel.OUTPUT)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.wait_exited)
        nursery.start_soon(channel.wait_closed)
        await wait_all_tasks_blocked()
        channel.lost("the cable was cut")
    assert await channel.receive(Channel.OUTPUT, 10) == b"last"
    with pytest.raises(trio.BrokenResourceError, match="cable"):
        await channel.receive(Channel.OUTPUT, 10)
    with pytest.raises(trio.BrokenResourceError, match="cable"):
        await channel.send(b"x")
    channel.close()
    channel.send_eof()
    channel.resize(TerminalSize())
    assert library.log == []


async def test_sending_waits_while_the_library_is_full(
    channel: RemoteChannel, library: _Library
) -> None:
    channel.set_full(is_full=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.send, b"hello")
        await wait_all_tasks_blocked()
        assert library.written == []
        channel.set_full(is_full=False)
    assert library.written == [b"hello"]
    channel.resize(TerminalSize(10, 20))
    channel.send_eof()
    channel.send_eof()
    assert library.log == ["10x20", "eof"]
    with pytest.raises(trio.ClosedResourceError):
        await channel.send(b"more")


async def test_a_sender_is_woken_by_the_end(channel: RemoteChannel, library: _Library) -> None:
    channel.set_full(is_full=True)

    async def send(error: type[Exception]) -> None:
        with pytest.raises(error):
            await channel.send(b"hello")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, trio.BrokenResourceError)
        await wait_all_tasks_blocked()
        channel.exited(ExitStatus(code=0))
    assert library.written == []


async def test_discarding_lets_everything_pass(channel: RemoteChannel, library: _Library) -> None:
    library.flood()
    assert library.held > BUFFER_BYTES
    channel.discard()
    assert not library.is_paused
    assert library.held == 0
    channel.feed(b"late", Channel.OUTPUT)
    assert library.held == 0
    with pytest.raises(trio.ClosedResourceError):
        await channel.send(b"x")
