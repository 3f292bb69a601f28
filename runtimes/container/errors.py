"""What can go wrong between us and a container engine."""

from __future__ import annotations

from runtimes.exec_inside.process import ExecError


class EngineError(ExecError):
    """The engine refused; `status` is that of its answer.  The message is shown to users."""


class EngineUnreachable(EngineError):
    """There is no engine there, it does not answer, or it is not one that we can work with."""
