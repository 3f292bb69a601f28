"""A session host in memory that fails on demand, and counts what it must give back."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from relay.protocol.reasons import CloseReason
from relay.stream import StreamStatistics
from runtimes.base import HostedSession, SandboxError, SandboxSpec
from tests.testing.streamless_host import StreamlessHost


@dataclass
class Faults:
    """What goes wrong with one session; times are in seconds."""

    open_delay: float = 0.0
    open_error: BaseException | None = None
    open_ignores_cancel: bool = False
    """Finish opening although it was cancelled meanwhile."""
    body_error_after: float | None = None
    """The host breaks this long after the session opened."""
    teardown_delay: float = 0.0
    teardown_error: BaseException | None = None


@dataclass
class FakeHosted(HostedSession):
    spec: SandboxSpec
    ends: list[CloseReason] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    closed: bool = False
    forced: bool = False
    paused: bool = False
    refusal: str = ""
    """Why pausing and resuming do not work."""

    async def pause(self) -> None:
        await self._set_paused(value=True)

    async def resume(self) -> None:
        await self._set_paused(value=False)

    async def _set_paused(self, *, value: bool) -> None:
        await trio.sleep(1)
        if self.refusal:
            raise SandboxError(self.refusal)
        self.paused = value

    def end(self, reason: CloseReason) -> None:
        self.ends.append(reason)

    def revoke(self, epoch: int) -> None:
        self.epochs.append(epoch)


class FakeHost(StreamlessHost):
    """Hosts nothing.  `faults` are taken one by one; `seed` makes up more when they are used up."""

    def __init__(
        self,
        *faults: Faults,
        seed: int | None = None,
        runtime_name: str = "fake",
        isolated: bool = True,
    ) -> None:
        self._faults = list(faults)
        self._random = None if seed is None else random.Random(seed)
        self._runtime_name = runtime_name
        self._isolated = isolated
        self.opening = 0
        self.open = 0
        self.hosted: list[FakeHosted] = []
        self.traffic: dict[str, tuple[StreamStatistics, ...]] = {}
        """What `streams` tells, by session."""
        self.lost: list[str] = []
        self.keeping = True
        self.removed: list[str] = []
        """The sessions whose homes were to be removed."""
        self.removal_delay = 0.0
        self.removal_error: Exception | None = None

    @property
    def runtime_name(self) -> str:
        return self._runtime_name

    @property
    def isolated(self) -> bool:
        return self._isolated

    def streams(self, session_id: str) -> tuple[StreamStatistics, ...]:
        return self.traffic.get(session_id, ())

    def keeps_homes(self, runtime: str) -> bool:
        return self.keeping

    async def remove_home(self, spec: SandboxSpec) -> None:
        assert spec.session_id not in [one.spec.session_id for one in self.hosted if not one.closed]
        self.removed.append(spec.session_id)
        await trio.sleep(self.removal_delay)
        if self.removal_error is not None:
            raise self.removal_error

    async def end_lost(self, session_ids: Collection[str]) -> None:
        await trio.lowlevel.checkpoint()
        self.lost.extend(session_ids)

    def _next_faults(self) -> Faults:
        if self._faults:
            return self._faults.pop(0)
        if self._random is None:
            return Faults()
        rnd = self._random
        return Faults(
            open_delay=rnd.choice([0, 0, 0.5, 5, 100]),
            open_error=rnd.choice([None, None, None, SandboxError("no room"), OSError("boom")]),
            open_ignores_cancel=rnd.random() < 0.1,
            body_error_after=rnd.choice([None, None, None, 0, 3]),
            teardown_delay=rnd.choice([0, 0, 1, 1000]),
            teardown_error=rnd.choice([None, None, None, ValueError("stuck")]),
        )

    @asynccontextmanager
    async def open_session(self, spec: SandboxSpec) -> AsyncIterator[HostedSession]:
        faults = self._next_faults()
        self.opening += 1
        try:
            with trio.CancelScope(
                shield=faults.open_ignores_cancel, deadline=trio.current_time() + 1000
            ):
                await trio.sleep(faults.open_delay)
            if faults.open_error is not None:
                raise faults.open_error
        finally:
            self.opening -= 1
        hosted = FakeHosted(spec)
        self.hosted.append(hosted)
        self.open += 1
        try:
            async with trio.open_nursery() as nursery:
                if faults.body_error_after is not None:
                    nursery.start_soon(self._break, faults.body_error_after)
                yield hosted
                nursery.cancel_scope.cancel()
            try:
                await trio.sleep(faults.teardown_delay)
            except trio.Cancelled:
                hosted.forced = True
                raise
            if faults.teardown_error is not None:
                raise faults.teardown_error
        finally:
            hosted.closed = True
            self.open -= 1

    async def _break(self, seconds: float) -> None:
        await trio.sleep(seconds)
        raise RuntimeError("the host broke")
