from __future__ import annotations

import signal

import pytest
import trio

from relay.errors import AttachmentClosed, AttachRefused, InputUncertain
from relay.protocol.reasons import CloseReason, Refusal
from trunkline.cli.attached import Detached, Interrupted
from trunkline.cli.running import run
from trunkline.sdk.errors import ApiError, ServerNotFound, ServerUnreachable


def test_what_it_returns() -> None:
    async def main() -> int:
        return 17

    assert run(main) == 17


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (Detached(), 0, ""),
        (Interrupted(signal.SIGTERM), 143, ""),
        (Interrupted(signal.SIGINT), 130, ""),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 141, ""),
        (
            AttachRefused(Refusal.BUSY, "another client has it"),
            1,
            "another client has it; add --view to watch, or --takeover to take it over",
        ),
        (AttachRefused(Refusal.LIMIT, ""), 1, "limit"),
        (AttachRefused(Refusal.START_FAILED, "x: not found"), 127, "x: not found"),
        (AttachmentClosed(CloseReason.CONNECTION_LOST, "no answer"), 74, "gave up: no answer"),
        (AttachmentClosed(CloseReason.REVOKED), 1, "closed: revoked"),
        (AttachmentClosed(CloseReason.EXPIRED, "too late"), 1, "closed (expired): too late"),
        (InputUncertain("nobody knows"), 1, "nobody knows"),
        (ServerNotFound("start one"), 1, "start one"),
        (ServerUnreachable("it sleeps"), 1, "it sleeps"),
        (ApiError(401, "Unauthorized", "no credential"), 1, "not let in: no credential"),
        (ApiError(500, "Oh", ""), 1, "Oh"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_errors_become_words_and_codes(
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    said: str,
    *,
    wrapped: bool,
) -> None:
    async def fail() -> None:
        raise error

    async def main() -> None:
        if not wrapped:
            raise error
        async with trio.open_nursery() as outer, trio.open_nursery() as inner:
            outer.start_soon(trio.sleep_forever)
            inner.start_soon(fail)

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (f"trunkline: {said}\n" if said else "")


def test_the_most_telling_of_several(capsys: pytest.CaptureFixture[str]) -> None:
    group = ExceptionGroup(
        "several",
        [
            AttachmentClosed(CloseReason.REVOKED),
            ExceptionGroup("more", [BrokenPipeError(), AttachmentClosed(CloseReason.REVOKED)]),
        ],
    )

    async def main() -> None:
        raise group

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 141


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), ExceptionGroup("g", [KeyError(), OSError()])]
)
def test_bugs_are_shown(error: Exception) -> None:
    async def main() -> None:
        raise error

    with pytest.raises(type(error)):
        run(main)
