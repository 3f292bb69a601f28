from __future__ import annotations

import pytest

from relay.client import TrunkState, TrunkStatus
from relay.endpoint import ExitStatus
from trunkline.cli.attached import Notices, exit_code


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (ExitStatus(code=0), 0),
        (ExitStatus(code=255), 255),
        (ExitStatus(signal="TERM"), 143),
        (ExitStatus(signal="KILL"), 137),
        (ExitStatus(signal="INT"), 130),
        (ExitStatus(signal="NOSUCH"), 255),
    ],
)
def test_exit_codes(status: ExitStatus, code: int) -> None:
    assert exit_code(status) == code


def test_notices_are_few() -> None:
    """Once when the connection is lost, once when it is back; nothing at the start and the end."""
    said: list[str] = []
    notices = Notices(said.append)
    waiting = TrunkStatus(TrunkState.WAITING, "receiving: reset", 0.1)
    for status in (
        TrunkStatus(TrunkState.CONNECTING),
        TrunkStatus(TrunkState.CONNECTED),
        waiting,
        TrunkStatus(TrunkState.CONNECTING),
        waiting,
        TrunkStatus(TrunkState.CONNECTING),
        TrunkStatus(TrunkState.CONNECTED),
        TrunkStatus(TrunkState.CLOSED),
    ):
        notices(status)
    assert said == ["connection lost (receiving: reset); reconnecting", "connected again"]
