"""Names of signals, as the protocol and the API write them: without ``SIG``."""

from __future__ import annotations

import signal


def signal_number(name: str) -> signal.Signals:
    """Return the signal called `name`, without ``SIG``: ``"INT"``.

    Raises:
      ValueError: there is no such signal.
    """
    try:
        return signal.Signals[f"SIG{name}"]
    except KeyError:
        raise ValueError(f"there is no signal {name!r}; names look like INT, TERM, KILL") from None


def signal_name(number: int) -> str:
    """Return the name of signal `number`, without ``SIG``; ``"RTMIN+2"`` for a real-time one."""
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return f"RTMIN+{number - signal.SIGRTMIN}"
