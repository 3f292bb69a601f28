"""A host whose streams nobody may ask for."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from relay.client import Trunk
from relay.grant import Grant
from relay.stream import StreamStatistics
from runtimes.base import SessionHost


class StreamlessHost(SessionHost):
    """Base of hosts for tests that have nothing to do with streams."""

    def open_trunk(self, grant: Grant) -> AbstractAsyncContextManager[Trunk]:
        raise AssertionError("no stream is asked for here")

    def streams(self, session_id: str) -> tuple[StreamStatistics, ...]:
        raise AssertionError("no stream is asked for here")

    def send_signal(self, session_id: str, tag: str, name: str) -> None:
        raise AssertionError("no stream is asked for here")
