"""Several runtimes behind one, and the choice among them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from runtimes.base import Runtime, Sandbox, SandboxError, SandboxSpec

AUTO = "auto"
"""The name that stands for the best runtime that works."""

PREFERENCE = ("bubblewrap", "local")
"""What `AUTO` tries, in this order; the last one always works."""

Maker = Callable[[], Runtime]

_log = structlog.get_logger()


class SelectedRuntimes(Runtime):
    """Named runtimes behind one: `SandboxSpec.runtime` selects, empty means `default`."""

    def __init__(self, default: Runtime, others: Iterable[Runtime] = ()) -> None:
        self._default = default
        self._runtimes = {runtime.name: runtime for runtime in (*others, default)}

    @property
    def name(self) -> str:
        """The name of the default one."""
        return self._default.name

    @property
    def isolated(self) -> bool:
        """Whether the default one isolates."""
        return self._default.isolated

    def isolates(self, name: str) -> bool | None:
        """As `Runtime.isolates`, for each of them."""
        runtime = self._runtimes.get(name)
        return None if runtime is None else runtime.isolated

    def keeps_homes(self, name: str) -> bool:
        """As `Runtime.keeps_homes`, for each of them."""
        runtime = self._runtimes.get(name)
        return runtime is not None and runtime.keeps_homes(name)

    async def remove_home(self, spec: SandboxSpec) -> None:
        """As `Runtime.remove_home`.

        Raises:
          SandboxError: also where there is no runtime of that name.
        """
        await self._runtime_of(spec).remove_home(spec)

    async def prepare(self) -> None:
        """As `Runtime.prepare`, of each."""
        for runtime in self._runtimes.values():
            await runtime.prepare()

    async def end_lost(self, session_ids: Collection[str]) -> None:
        """As `Runtime.end_lost`, of each."""
        for runtime in self._runtimes.values():
            await runtime.end_lost(session_ids)

    @asynccontextmanager
    async def open_sandbox(self, spec: SandboxSpec) -> AsyncIterator[Sandbox]:
        """As `Runtime.open_sandbox`.

        Raises:
          SandboxError: also where there is no runtime of that name.
        """
        async with self._runtime_of(spec).open_sandbox(spec) as sandbox:
            yield sandbox

    def _runtime_of(self, spec: SandboxSpec) -> Runtime:
        runtime = self._runtimes.get(spec.runtime or self.name)
        if runtime is None:
            known = ", ".join(sorted(self._runtimes))
            raise SandboxError(f"this server has no runtime {spec.runtime!r}; it has {known}")
        return runtime


@dataclass(frozen=True, slots=True)
class Selection:
    """What was chosen; `fallback` says, for a human, why it is not the best there is."""

    runtimes: SelectedRuntimes
    fallback: str = ""


async def select(wanted: str, needed: Mapping[str, str], makers: Mapping[str, Maker]) -> Selection:
    """Make the runtimes of a server, and see that they work.

    `wanted` is the name of the default one, or `AUTO`.  `needed` are the names of further ones, each
    with the configuration key that asks for it.

    Raises:
      SandboxError: one does not exist or does not work; says which, why, and what to do.

    Cancellation: safe.
    """
    fallback = ""
    if wanted == AUTO:
        default, fallback = await _best(makers)
    else:
        default = await _working(wanted, f"the runtime {wanted!r}", makers)
    others = [
        await _working(name, key, makers) for name, key in needed.items() if name != default.name
    ]
    return Selection(SelectedRuntimes(default, others), fallback)


async def _best(makers: Mapping[str, Maker]) -> tuple[Runtime, str]:
    reasons: list[str] = []
    for name in PREFERENCE[:-1]:
        try:
            return await _working(name, name, makers), "; ".join(reasons)
        except SandboxError as error:
            reasons.append(str(error))
    last = PREFERENCE[-1]
    _log.warning("sessions_are_not_isolated", runtime=last, reason="; ".join(reasons))
    return await _working(last, last, makers), "; ".join(reasons)


async def _working(name: str, who: str, makers: Mapping[str, Maker]) -> Runtime:
    if name not in makers:
        raise SandboxError(f"{who}: there is no runtime {name!r}; there are {', '.join(makers)}")
    runtime = makers[name]()
    try:
        await runtime.prepare()
    except SandboxError as error:
        raise SandboxError(f"{who}: {error}") from error
    return runtime
