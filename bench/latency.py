"""The load generator's clients for round trips and connection set-ups."""

from __future__ import annotations

import selectors
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

from bench.pattern import frame_header
from bench.ratios import percentile
from bench.wire import HandshakeFailed, Route, connect, leave

MESSAGE_BYTES = 32
ZEROS = b"\0\0\0\0"
"""The mask of echoes: so that one who keeps WebSocket behind a relay can answer without unmasking."""
WARM_UP = 20


class WrongEcho(Exception):
    """What came back is not what was sent."""


@dataclass(frozen=True)
class Trips:
    """Round trips: `p50` and `p99` in microseconds, `rate` per second over all connections."""

    p50: float
    p99: float
    rate: float


class _Echo:
    """One connection with one message under way at a time."""

    def __init__(self, route: Route, number: int) -> None:
        self.sock, self._pending = connect(route, number)
        self._websocket = route.websocket
        self._head = frame_header(MESSAGE_BYTES, ZEROS) if route.websocket else b""
        self._sent = b""
        self._count = number << 32
        self.began = 0.0

    def send(self) -> None:
        self._count += 1
        self._sent = self._count.to_bytes(MESSAGE_BYTES, "big")
        self.began = time.perf_counter()
        self.sock.sendall(self._head + self._sent)

    def receive(self) -> float | None:
        """Take what has come; return the seconds of the trip once all is there."""
        piece = self.sock.recv(4096)
        now = time.perf_counter()
        if not piece:
            raise WrongEcho("the relay closed the connection")
        data = self._pending + piece
        if not self._websocket:
            payload = data
        else:
            payload, at = b"", 0
            while len(data) - at >= 2 and len(data) - at >= 2 + data[at + 1]:
                stop = at + 2 + data[at + 1]
                if data[at] & 15 < 8:
                    payload += data[at + 2 : stop]
                at = stop
        if len(payload) < MESSAGE_BYTES:
            self._pending = data
            return None
        if payload != self._sent:
            raise WrongEcho(f"sent {self._sent.hex()}, got {payload.hex()}")
        self._pending = b""
        return now - self.began


def echoes(_: Connection, route: Route, connections: int, seconds: float) -> Trips:
    """Send small messages and wait for each to come back; one under way on each connection."""
    ends = [_Echo(route, number) for number in range(connections)]
    for end in ends:
        for _number in range(WARM_UP if connections == 1 else 1):
            end.send()
            while end.receive() is None:
                pass
    times = _one(ends[0], seconds) if connections == 1 else _several(ends, seconds)
    leave([end.sock for end in ends], websocket=route.websocket)
    ordered = sorted(times)
    return Trips(
        p50=percentile(ordered, 0.5) * 1e6,
        p99=percentile(ordered, 0.99) * 1e6,
        rate=len(ordered) / seconds,
    )


def _one(end: _Echo, seconds: float) -> list[float]:
    times: list[float] = []
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop:
        end.send()
        while (took := end.receive()) is None:
            pass
        times.append(took)
    return times


def _several(ends: list[_Echo], seconds: float) -> list[float]:
    times: list[float] = []
    with selectors.DefaultSelector() as selector:
        for end in ends:
            selector.register(end.sock, selectors.EVENT_READ, end)
            end.send()
        stop = time.perf_counter() + seconds
        while time.perf_counter() < stop:
            for key, _ in selector.select(1):
                end = key.data
                if (took := end.receive()) is not None:
                    times.append(took)
                    end.send()
    return times


def setups(_: Connection, route: Route, seconds: float) -> float:
    """Connect, wait for one echo, close; return how often that goes per second, one at a time."""
    done = 0
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        try:
            end = _Echo(route, done)
        except HandshakeFailed:
            if done and route.target(done) is None:
                break  # out of tickets
            raise
        end.send()
        while end.receive() is None:
            pass
        leave([end.sock], websocket=route.websocket)
        done += 1
    return done / (time.perf_counter() - began)
