"""Rounds: every flow of every subject in turn, again and again, until the time is used up.

Interleaved, so that what disturbs the machine for a while disturbs all alike; what is compared comes from
the same round (see `bench.ratios`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Self

from bench import loadgen
from bench.machine import Noise, NoiseReport, cpu_seconds
from bench.pattern import Damage
from bench.ratios import median, paired_ratio
from bench.rivals import by_name
from bench.rivals.base import Ports, Running, Subject
from bench.wire import StartFailed
from bench.workers import Worker, WorkerFailed

LIMIT_SHARE = 0.6
"""A subject that reaches this share of the load generator's own limit may be faster than shown."""
REFERENCE = "socket-stream"
CHAIN = "two-hops"
DIRECT = "none"
NO_TIME = "there was no time left"
SETTLE = 0.3
FAILURES = 3
PATIENCE = 30.0
"""Seconds that one measurement may take."""


@dataclass(frozen=True)
class Sample:
    """One measurement: `value` in the flow's unit, and what the relay's processes spent on it.

    `cost` is CPU seconds per MB, or per operation; None where it cannot be told.
    """

    value: float
    cost: float | None = None
    damage: Damage = field(default_factory=Damage)


@dataclass(frozen=True)
class Flow:
    """Something that is measured for several subjects.

    Subjects are those that have the `role`, or the `only` ones; and `also` these.  `more` says that more is better.
    `reference` is what ratios are to; None: there is nothing to compare with.
    """

    name: str
    title: str
    unit: str
    measure: Callable[[Lab, Case], Sample]
    role: str | None = None
    only: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    more: bool = True
    reference: str | None = REFERENCE
    limit: bool = True
    """Whether the direct row, if there is one, is the load generator's limit."""
    direct: bool = True
    """Whether there is such a row."""
    once: bool = False
    """Too long for every round: measured in the first one only."""

    def takes(self, subject: Subject) -> bool:
        """Whether the flow is measured for this subject."""
        if self.only:
            return subject.name in self.only
        if subject.name == DIRECT:
            return self.direct
        return self.role in subject.roles or subject.name in (self.reference, *self.also)


@dataclass
class Case:
    """A flow for one subject, with the samples so far (None: that round failed)."""

    flow: Flow
    subject: Subject
    seconds: float
    samples: list[Sample | None] = field(default_factory=list)
    problem: str | None = None
    failures: int = 0
    amount: int = 0
    """How much to move so that it takes `seconds`, as far as is known."""
    running: Running | None = None

    @property
    def values(self) -> list[float | None]:
        """The value of each round."""
        return [None if sample is None else sample.value for sample in self.samples]

    @property
    def costs(self) -> list[float | None]:
        """The cost of each round."""
        return [None if sample is None else sample.cost for sample in self.samples]

    @property
    def damage(self) -> Damage:
        """What was lost and repeated in all rounds."""
        total = Damage()
        for sample in self.samples:
            if sample is not None:
                total.add(sample.damage)
        return total

    @property
    def value(self) -> float | None:
        """The median."""
        return median([value for value in self.values if value is not None])


class Lab:
    """The two halves of the load generator, and the subjects that were started."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.back = stack.enter_context(Worker())
        self.client = stack.enter_context(Worker())
        self.ports = Ports(*self.back.call(loadgen.listen))
        self._running: dict[str, Running] = {}
        self._failed: dict[str, str] = {}
        self._failures: dict[str, int] = {}
        self.memo: dict[tuple[str, str], Any] = {}
        """What one flow measured for another to tell: by subject and what it is."""

    def pair(
        self, behind: Callable[..., Any], before: Callable[..., Any], *arguments: object
    ) -> tuple[Any, Any]:
        """Run a function on each side of a relay; return what both return.

        `arguments` are ``(websocket, load)`` for the first and ``(route, load)`` for the second:
        ``websocket, route, load``.
        """
        websocket, route, load = arguments
        self.back.call(loadgen.forget)
        self.back.start(behind, websocket, load)
        try:
            seen = self.client.call(before, route, load, seconds=PATIENCE)
        except WorkerFailed:
            self.back.stop()
            raise
        return self.back.result(PATIENCE), seen

    def reset(self) -> None:
        """After a failure: let nothing of it reach the next measurement."""
        for worker in (self.back, self.client):
            worker.settle(PATIENCE)
        self.back.call(loadgen.forget)
        self.client.call(loadgen.release)

    def failed(self, subject: Subject, problem: str) -> None:
        """Note a failure; a subject that fails again and again is left out, to save the time."""
        self._failures[subject.name] = self._failures.get(subject.name, 0) + 1
        if self._failures[subject.name] >= FAILURES:
            self._failed.setdefault(subject.name, f"left out: {problem}")

    def running(self, subject: Subject) -> Running:
        """Return the subject, started if it was not.

        Raises:
          StartFailed: it cannot be.
        """
        name = subject.name
        if name in self._failed:
            raise StartFailed(self._failed[name])
        if name not in self._running:
            try:
                self._running[name] = subject.start(self._stack, self.ports)
            except StartFailed as error:
                self._failed[name] = str(error)
                raise
            time.sleep(SETTLE)  # a relay that connected when it was asked whether it is there
            self.back.call(loadgen.forget)
        return self._running[name]


@dataclass
class Run:
    """What a run found."""

    cases: list[Case]
    rounds: int
    seconds: float
    noise: NoiseReport
    missing: dict[str, str]

    def ratio(self, case: Case, other: str | None, *, cost: bool = False) -> float | None:
        """Return the median of the ratios of a case to another subject in the same rounds."""
        for each in self.cases:
            if each.flow is case.flow and each.subject.name == other:
                if cost:  # work per CPU-second: turned over, so that more is better
                    return paired_ratio(each.costs, case.costs)
                return paired_ratio(case.values, each.values)
        return None

    def limited(self, case: Case) -> bool:
        """Whether the load generator may have been the bottleneck."""
        if not (case.flow.limit and case.flow.more) or case.subject.name == DIRECT:
            return False
        ratio = self.ratio(case, DIRECT)
        return ratio is not None and ratio > LIMIT_SHARE


def run(
    flows: Sequence[Flow],
    names: Sequence[str],
    *,
    rounds: int,
    seconds: float,
    budget: float,
    progress: Callable[[str], None] = lambda _: None,
) -> Run:
    """Measure `flows` for the subjects called `names`, as far as installed.

    Stops before a round that would go beyond `budget` seconds, and in the first where it does;
    starting them is not counted.
    """
    subjects = [by_name(name) for name in names]
    missing = {each.name: advice for each in subjects if (advice := each.missing()) is not None}
    present = [each for each in subjects if each.name not in missing]
    cases = [Case(flow, each, seconds) for flow in flows for each in present if flow.takes(each)]
    done = 0
    with ExitStack() as stack:
        lab = Lab(stack)
        for subject in {case.subject.name: case.subject for case in cases}.values():
            progress(f"starting {subject.name}")
            with suppress(StartFailed):  # told when it is to be measured
                lab.running(subject)
        noise = Noise()
        began = time.monotonic()
        longest = 0.0
        while done < rounds and (not done or time.monotonic() - began + longest < budget):
            round_began = time.monotonic()
            for case in cases:
                late = time.monotonic() - began > budget
                if late and not case.samples:
                    case.problem = NO_TIME
                elif not late and case.failures < 2 and not (done and case.flow.once):
                    progress(f"round {done + 1}: {case.flow.name}: {case.subject.name}")
                    noise.sample()
                    _measure(lab, case)
            longest = time.monotonic() - round_began
            done += 1
        report = noise.judge()
    return Run(cases, done, time.monotonic() - began, report, missing)


def _measure(lab: Lab, case: Case) -> None:
    try:
        case.running = lab.running(case.subject)
        case.samples.append(case.flow.measure(lab, case))
    except (StartFailed, WorkerFailed, OSError) as error:
        case.samples.append(None)
        case.problem = str(error)
        case.failures += 1
        lab.failed(case.subject, case.problem)
        lab.reset()


class Spent:
    """CPU seconds of the subject's processes while a block runs."""

    def __init__(self, case: Case) -> None:
        self._pids = case.running.pids if case.running else []
        self._began = 0.0
        self.seconds = 0.0

    def __enter__(self) -> Self:
        self._began = cpu_seconds(self._pids)
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = cpu_seconds(self._pids) - self._began
