"""The signal dispositions that children inherit."""

from __future__ import annotations

import signal
import threading
from types import FrameType

# What a server may have been started with as "ignored": HUP by nohup, INT and QUIT by a script's
# ``&``, CHLD by a careless supervisor (the kernel then reaps children and loses their status).
_OFTEN_IGNORED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGCHLD,
)


def hand_down_default_signals() -> None:
    """See to it that children start with the default dispositions of the usual signals.

    An ignored signal stays ignored across exec: under ``nohup trunkline serve`` no shell would
    ever notice a hang-up, and after ``trunkline serve &`` in a script Ctrl-C would do nothing.  A
    *caught* signal is reset by exec, so every ignored one gets a handler that does nothing: to
    this process that is as good as ignoring.  (`subprocess` itself resets PIPE and XFSZ.)

    Python allows this in the main thread only; elsewhere nothing is changed, and children of a
    server that ignores these signals ignore them too, until they are killed.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in _OFTEN_IGNORED:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _still_ignored)


def _still_ignored(_number: int, _frame: FrameType | None) -> None:
    """Do nothing."""
