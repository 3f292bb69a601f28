"""What workers run must be importable there, so these use functions of the bench."""

from __future__ import annotations

import os

import pytest

from bench import latency, loadgen
from bench.wire import Route, free_port
from bench.workers import Worker, WorkerFailed


def test_a_function_runs_until_it_is_stopped() -> None:
    with Worker() as back, Worker() as client:
        tcp, websocket = back.call(loadgen.listen)
        assert len({back.pid, client.pid, os.getpid()}) == 3
        back.start(loadgen.echo)
        for route in (Route(tcp, websocket=False), Route(websocket, websocket=True)):
            trips = client.call(latency.echoes, route, 3, 0.05)
            assert 0 < trips.p50 <= trips.p99
            assert client.call(latency.setups, route, 0.05) > 0
        back.stop()
        assert back.result(10) is None


@pytest.mark.parametrize("websocket", [False, True])
@pytest.mark.parametrize("connections", [1, 3])
@pytest.mark.parametrize("size", [16, 65536])
def test_every_byte_comes(websocket: bool, connections: int, size: int) -> None:
    """The load generator with itself, both framings, both directions."""
    load = loadgen.Load(connections, size, 3 * 65536)
    with Worker() as back, Worker() as client:
        ports = back.call(loadgen.listen)
        route = Route(ports[websocket], websocket=websocket)
        back.start(loadgen.source, websocket, load)
        down = client.call(loadgen.receive, route, load)
        back.result(10)
        assert down.damage.clean
        assert down.damage.received == connections * load.bytes_each
        back.start(loadgen.sink, websocket, load)
        client.call(loadgen.send, route, load)
        up = back.result(10)
        assert up.damage.clean
        assert up.damage.received >= connections * load.bytes_each
        if connections > 1:
            assert len(up.shares) == connections


def test_what_is_raised_is_told() -> None:
    with Worker() as worker:
        with pytest.raises(WorkerFailed, match="ConnectionRefusedError") as caught:
            worker.call(latency.echoes, Route(free_port(), websocket=False), 1, 0.05)
        assert "Traceback" in caught.value.report
        assert worker.call(loadgen.forget) is None  # and it goes on


def test_a_measurement_can_be_given_up() -> None:
    with Worker() as worker:
        worker.call(loadgen.listen)
        worker.start(loadgen.source, False, loadgen.Load(1, 16, 16))
        worker.settle(10)
        assert worker.call(loadgen.forget) is None


def test_a_process_that_hangs_is_ended() -> None:
    with Worker() as worker:
        worker.call(loadgen.listen)
        worker.start(loadgen.echo)
        with pytest.raises(WorkerFailed, match="did not finish within"):
            worker.result(0.05)
        with pytest.raises(WorkerFailed, match="ended"):
            worker.call(loadgen.forget)
