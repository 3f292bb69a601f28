"""When output ends, if a background process holds it open; and how much is held."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from relay.endpoint import Channel, Endpoint, ExitStatus, Kind, StartRequest
from runtimes.base import Sandbox, SandboxSpec
from runtimes.local import LocalRuntime
from runtimes.local.pipes import OUTPUT_PIPE_BYTES

LINGER = 0.3

both_kinds = pytest.mark.parametrize("kind", [Kind.EXEC, Kind.PTY])


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    with trio.fail_after(30):
        runtime = LocalRuntime(grace=0.2, linger=LINGER)
        async with runtime.open_sandbox(SandboxSpec("channels")) as sandbox:
            yield sandbox


async def run(sandbox: Sandbox, kind: Kind, script: str) -> Endpoint:
    return await sandbox.start(StartRequest(kind, ("sh", "-c", script)))


async def read_all(endpoint: Endpoint, max_bytes: int = 65536) -> bytes:
    pieces = []
    while piece := await endpoint.receive(Channel.OUTPUT, max_bytes):
        pieces.append(bytes(piece))
    return b"".join(pieces)


@both_kinds
async def test_a_silent_background_process_does_not_keep_it_open(
    sandbox: Sandbox, kind: Kind
) -> None:
    endpoint = await run(sandbox, kind, "trap '' HUP; sleep 1000 & echo done; exit 4")
    start = trio.current_time()
    assert (await read_all(endpoint)).split() == [b"done"]
    assert trio.current_time() - start >= LINGER
    assert await endpoint.receive(Channel.OUTPUT, 1) == b""
    assert await endpoint.wait() == ExitStatus(code=4)


@both_kinds
async def test_last_words_are_heard(sandbox: Sandbox, kind: Kind) -> None:
    script = "trap '' HUP; (sleep 0.1; echo late; sleep 0.1; echo later) & echo first"
    endpoint = await run(sandbox, kind, script)
    assert (await read_all(endpoint)).split() == [b"first", b"late", b"later"]


@both_kinds
async def test_a_chatty_background_process_does_not_keep_it_open_either(
    sandbox: Sandbox, kind: Kind
) -> None:
    script = "trap '' HUP; while :; do echo chat; sleep 0.05; done & echo first"
    endpoint = await run(sandbox, kind, script)
    with trio.fail_after(20):
        assert b"first" in await read_all(endpoint)


@both_kinds
async def test_a_flooding_background_process_does_not_keep_it_open_either(
    sandbox: Sandbox, kind: Kind
) -> None:
    endpoint = await run(sandbox, kind, "trap '' HUP; yes & echo first")
    with trio.fail_after(20):
        while await endpoint.receive(Channel.OUTPUT, 65536):
            pass


async def test_a_slow_reader_gets_all_that_was_written_before_the_end() -> None:
    size = OUTPUT_PIPE_BYTES
    runtime = LocalRuntime(linger=0.001)
    with trio.fail_after(30):
        async with runtime.open_sandbox(SandboxSpec("slow")) as sandbox:
            script = f"trap '' HUP; sleep 1000 & head -c {size} /dev/zero"
            endpoint = await run(sandbox, Kind.EXEC, script)
            await endpoint.wait()
            for _ in range(8):
                # Longer than every linger together: a byte that is there is never given up.
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert len(await endpoint.receive(Channel.OUTPUT, size // 8)) == size // 8
            assert await endpoint.receive(Channel.OUTPUT, 1) == b""


async def test_both_outputs_end(sandbox: Sandbox) -> None:
    endpoint = await run(sandbox, Kind.EXEC, "trap '' HUP; sleep 1000 & echo done")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_all, endpoint)
        assert await endpoint.receive(Channel.ERROR, 1) == b""


async def test_a_closed_output_ends_while_the_process_runs(sandbox: Sandbox) -> None:
    endpoint = await run(sandbox, Kind.EXEC, "echo x; exec >&-; exec sleep 1000")
    assert await read_all(endpoint) == b"x\n"
    with trio.move_on_after(0.05) as scope:
        await endpoint.wait()
    assert scope.cancelled_caught


async def test_an_unread_flood_stops_at_the_bound(sandbox: Sandbox) -> None:
    # `head` reports on standard error how far it got, as soon as it is through.
    through = f"head -c {OUTPUT_PIPE_BYTES} /dev/zero; echo through >&2; cat /dev/zero"
    endpoint = await run(sandbox, Kind.EXEC, through)
    assert await endpoint.receive(Channel.ERROR, 100) == b"through\n"
    assert len(await endpoint.receive(Channel.OUTPUT, 10 * OUTPUT_PIPE_BYTES)) >= OUTPUT_PIPE_BYTES


async def test_two_receivers_are_a_bug(sandbox: Sandbox) -> None:
    endpoint = await run(sandbox, Kind.EXEC, "sleep 1000")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(endpoint.receive, Channel.OUTPUT, 1)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await endpoint.receive(Channel.OUTPUT, 1)
        nursery.cancel_scope.cancel()


async def test_input_that_a_process_never_had_time_to_read_is_no_error(sandbox: Sandbox) -> None:
    for _ in range(20):
        endpoint = await sandbox.start(StartRequest(Kind.EXEC, ("head", "-c", "5")))
        await endpoint.send(b"12345")
        assert await read_all(endpoint) == b"12345"
        await endpoint.aclose()
