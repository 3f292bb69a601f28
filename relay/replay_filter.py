"""Takes the questions out of replayed terminal output.

Programs ask the terminal things by escape sequences ("what are you?", "where is the cursor?"), and the
terminal answers by typing.  When old output is shown to a terminal again, nobody waits for those answers any
more: they would be typed into the shell.  This filter removes the questions and leaves everything
else as it is.  The sequences are those of ECMA-48, DEC VT510 and xterm's ctlseqs.
"""

from __future__ import annotations

import re

MAX_HELD = 64 * 1024
"""Bytes of an unfinished sequence that are held back; a longer one passes as it is."""

_SEQUENCE = re.compile(
    rb"\x1b\[(?P<prefix>[<-?]?)(?P<parameters>[0-?]*)(?P<intermediate>[ -/]*)(?P<final>[@-~])"
    rb"|\x1b\](?P<osc>[^\x07\x1b]*)(?:\x07|\x1b\\)"
    rb"|\x1b(?P<string>[P_])(?P<body>[^\x1b]*)\x1b\\"
    rb"|(?P<single>\x1bZ|\x05)"
)
_UNFINISHED = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?|[P_][^\x1b]*\x1b?)?\Z")
_WINDOW_REPORTS = frozenset(b"11 13 14 15 16 18 19 20 21".split())


class ReplayFilter:
    """Feed it replayed output, piece by piece; it returns what may be shown."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Return what may be shown so far; an unfinished sequence waits for its rest."""
        data = self._held + data
        self._held = b""
        unfinished = _UNFINISHED.search(data)
        if unfinished is not None and len(data) - unfinished.start() <= MAX_HELD:
            self._held = data[unfinished.start() :]
            data = data[: unfinished.start()]
        return _SEQUENCE.sub(_without_question, data)

    def flush(self) -> bytes:
        """Return what was held back: the replay is over, its rest comes live."""
        held, self._held = self._held, b""
        return held


def _without_question(match: re.Match[bytes]) -> bytes:
    return b"" if _is_question(match) else match[0]


def _is_question(match: re.Match[bytes]) -> bool:
    if match["single"]:  # ENQ, DECID
        return True
    if match["osc"] is not None:  # colours (4, 10 to 19), clipboard (52): "?" asks
        return b"?" in match["osc"].split(b";")[1:]
    if match["string"] is not None:
        if match["string"] == b"P":  # DECRQSS, XTGETTCAP
            return match["body"].startswith((b"$q", b"+q"))
        return match["body"].startswith(b"G") and b"a=q" in match["body"]  # kitty graphics
    return _is_csi_question(
        match["prefix"], match["parameters"], match["intermediate"], match["final"]
    )


def _is_csi_question(prefix: bytes, parameters: bytes, intermediate: bytes, final: bytes) -> bool:
    match (intermediate, final):
        case (b"", b"c"):  # DA1, DA2, DA3
            return True
        case (b"", b"n"):  # DSR; with ">" it sets a key mode
            return prefix != b">"
        case (b"", b"x"):  # DECREQTPARM
            return True
        case (b"", b"q"):  # XTVERSION; without ">" it sets the keyboard's lights
            return prefix == b">"
        case (b"", b"u"):  # kitty keyboard
            return prefix == b"?"
        case (b"", b"t"):  # reports of the window; others move it
            return parameters.split(b";")[0] in _WINDOW_REPORTS
        case (b"", b"S"):  # XTSMGRAPHICS; without "?" it scrolls
            return prefix == b"?"
        case (b"$", b"p" | b"w" | b"u") | (b"*", b"y"):  # DECRQM, DECRQPSR, DECRQTSR, DECRQCRA
            return True
        case _:
            return False
