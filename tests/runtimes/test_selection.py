from __future__ import annotations

import pytest
import trio

from runtimes.base import Runtime, SandboxError, SandboxSpec
from runtimes.fake import FakeRuntime
from runtimes.selection import AUTO, SelectedRuntimes, select
from tests.contracts.runtime_scenarios import exec_request, read_all


class Named(FakeRuntime):
    """A runtime of another name, which may not work, or not isolate."""

    def __init__(self, name: str, *, problem: str = "", isolated: bool = True) -> None:
        super().__init__()
        self._name = name
        self._problem = problem
        self._isolated = isolated
        self.lost: list[str] = []

    @property
    def name(self) -> str:
        return self._name

    @property
    def isolated(self) -> bool:
        return self._isolated

    async def prepare(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._problem:
            raise SandboxError(self._problem)

    async def end_lost(self, session_ids: object) -> None:
        assert isinstance(session_ids, tuple)
        self.lost.extend(session_ids)


def local() -> Runtime:
    return Named("local", isolated=False)


def broken() -> Runtime:
    return Named("bubblewrap", problem="bubblewrap is not installed; install it")


async def test_a_sandbox_is_made_by_the_runtime_that_its_spec_names() -> None:
    one, two = Named("one"), Named("two", isolated=False)
    runtimes = SelectedRuntimes(one, [two])
    assert (runtimes.name, runtimes.isolated) == ("one", True)
    assert [runtimes.isolates(name) for name in ("one", "two", "three")] == [True, False, None]
    for name in ("", "one", "two"):
        async with runtimes.open_sandbox(SandboxSpec("s", runtime=name)) as sandbox:
            assert await read_all(await sandbox.start(exec_request("echo", "x"))) == b"x\n"
    with pytest.raises(SandboxError, match="no runtime 'three'; it has one, two"):
        async with runtimes.open_sandbox(SandboxSpec("s", runtime="three")):
            pytest.fail("it opened")
    await runtimes.end_lost(("a", "b"))
    assert one.lost == two.lost == ["a", "b"]


async def test_auto_takes_the_best_that_works() -> None:
    makers = {"bubblewrap": lambda: Named("bubblewrap"), "local": local}
    selection = await select(AUTO, {}, makers)
    assert (selection.runtimes.name, selection.fallback) == ("bubblewrap", "")
    selection = await select(AUTO, {}, {"bubblewrap": broken, "local": local})
    assert (selection.runtimes.name, selection.runtimes.isolated) == ("local", False)
    assert selection.fallback == "bubblewrap: bubblewrap is not installed; install it"


async def test_what_is_asked_for_must_work() -> None:
    makers = {"bubblewrap": broken, "local": local}
    with pytest.raises(SandboxError, match=r"the runtime 'bubblewrap': .*; install it"):
        await select("bubblewrap", {}, makers)
    with pytest.raises(SandboxError, match=r"profiles\.x\.runtime: .*; install it"):
        await select("local", {"bubblewrap": "profiles.x.runtime"}, makers)
    with pytest.raises(SandboxError, match=r"profiles\.x\.runtime: there is no runtime 'none'"):
        await select("local", {"none": "profiles.x.runtime"}, makers)
    selection = await select("local", {"local": "profiles.x.runtime"}, makers)
    assert selection.runtimes.name == "local"
