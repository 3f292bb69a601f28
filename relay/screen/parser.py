"""Cuts terminal output into text, control characters and sequences (ECMA-48; DEC's VT500 parser).

Theory of operation
-------------------

Nearly everything that programs write is regular, and one regular expression finds the next piece of it.
What does not match is irregular: a string (OSC, DCS, ...), a sequence with control characters in it, one
that is broken off, or one of which the rest has not come yet.  That takes the slow path, which
follows the state machine.

Nothing is done before a sequence is complete: what is held back meanwhile is what a terminal that goes
on from here has to be given first (`held`).  A string without an end is bounded by forgetting what is
in it; such strings change nothing that is kept.
"""

from __future__ import annotations

import codecs
import re
from abc import ABC, abstractmethod

MAX_HELD = 64 * 1024
"""Characters of an unfinished sequence that are held."""

_TOKEN = re.compile(
    "([^\x00-\x1f\x7f-\x9f]*)"  # text, and one thing behind it:
    "(\x1b\\[[<-?]?[0-9:;]*[ -/]*[@-~]"
    "|\r\n"
    "|[\x00-\x1a\x1c-\x1f\x7f-\x8f\x91-\x97\x99\x9a\x9c]"
    "|\x1b(?:[ -/]+[0-~]|[0-OQ-WYZ\\\\`-~])"
    "|\x9b[<-?]?[0-9:;]*[ -/]*[@-~])?"
)
_STRING = re.compile("(?:\x1b([]PX^_])|([\x90\x98\x9d-\x9f]))")
_OSC_BODY = re.compile("[^\x07\x18\x1a\x1b\x80-\x9f]*")
_DCS_BODY = re.compile("[^\x18\x1a\x1b\x80-\x9f]*")
_OTHER_BODY = re.compile("[\x00-\x17\x19\x1c-\x7f]*")
_IRREGULAR = re.compile("(\x1b\\[|\x9b|\x1b)([\x00-\x17\x19\x1c-\x1f -?\x7f]*)")
_CONTROLS = re.compile("[\x00-\x1f\x7f]")
_CSI = re.compile("[<-?]?[0-9:;]*[ -/]*[@-~]\\Z")
_FORGOTTEN = {"]": "\x1b]!", "[": "\x1b[<<"}
"""How an OSC or CSI sequence begins that changes nothing, whatever follows."""
_IGNORED_STRING = "\x1bX"


class Handler(ABC):
    """Acts on what the parser finds."""

    @abstractmethod
    def text(self, text: str) -> None:
        """Draw printable characters."""

    @abstractmethod
    def control(self, character: str) -> None:
        """Act on a control character, C0 or C1."""

    @abstractmethod
    def csi(self, sequence: str) -> None:
        """Act on a control sequence: all of it behind the introducer, such as ``?25h``."""

    @abstractmethod
    def escape(self, sequence: str) -> None:
        """Act on an escape sequence: all of it behind the ESC, such as ``(B``."""

    @abstractmethod
    def osc(self, body: str) -> None:
        """Act on an operating system command."""


class Parser:
    """Feeds a handler."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        self._rest = ""

    @property
    def held(self) -> bytes:
        """The beginning of a sequence or character that is not complete yet."""
        undecoded, _ = self._decoder.getstate()
        return self._rest.encode() + undecoded

    def feed(self, data: bytes) -> None:
        """Take output."""
        text = self._decoder.decode(data)
        if "\ufeff" in text:
            text = text.replace("\ufeff", "")
        if self._rest:
            text = self._rest + text
            self._rest = ""
        handler = self._handler
        match = _TOKEN.match
        position = 0
        end = len(text)
        while position < end:
            token = match(text, position)
            if token is None:
                raise AssertionError("the expression matches nothing, too")
            plain, found = token.groups()
            position = token.end()
            if plain:
                handler.text(plain)
            if found is None:
                if position < end:
                    text, position = self._irregular(text, position)
                    end = len(text)
            elif found[0] == "\x1b":
                if found[1] == "[":
                    handler.csi(found[2:])
                else:
                    handler.escape(found[1:])
            elif found == "\r\n":
                handler.control("\r")
                handler.control("\n")
            elif found[0] == "\x9b":
                handler.csi(found[1:])
            else:
                handler.control(found)

    def _irregular(self, text: str, position: int) -> tuple[str, int]:
        """Take what is at `position`; return the text and where to go on in it."""
        begins = _STRING.match(text, position)
        if begins is not None:
            return self._string(text, position, begins)
        begins = _IRREGULAR.match(text, position)
        if begins is None:
            raise AssertionError(f"nothing takes {text[position]!r}")  # the expressions cover all
        introducer, body = begins[1], begins[2]
        position = begins.end()
        if position == len(text):
            self._hold(introducer + body, "" if introducer == "\x1b" else "[")
            return text, position
        final = text[position]
        controls = "".join(_CONTROLS.findall(body))
        for character in controls:
            self._handler.control(character)
        body = _CONTROLS.sub("", body)
        if introducer == "\x1b" and not body and final in "[]PX^_":
            return "\x1b" + text[position:], 0  # there were controls in between
        if final < "\x7f" and final not in "\x18\x1a\x1b":
            self._dispatch(introducer, body, final)
        elif final == "\x1b" or "\x80" <= final <= "\x9f":
            return text, position  # breaks the sequence off and begins another
        return text, position + 1

    def _dispatch(self, introducer: str, body: str, final: str) -> None:
        if introducer == "\x1b":
            self._handler.escape(body + final)
        elif _CSI.match(body + final):
            self._handler.csi(body + final)

    def _string(self, text: str, position: int, begins: re.Match[str]) -> tuple[str, int]:
        kind = begins[1] or {"\x9d": "]", "\x90": "P"}.get(begins[2], "_")
        pattern = {"]": _OSC_BODY, "P": _DCS_BODY}.get(kind, _OTHER_BODY)
        body = pattern.match(text, begins.end())
        end = body.end() if body else begins.end()
        if end == len(text):
            self._hold(text[position:], kind)
            return text, end
        terminator = text[end]
        if kind == "]" and body and terminator in "\x07\x1b\x9c":
            self._handler.osc(_CONTROLS.sub("", body[0]))
        else:
            self._handler.control(
                "\x18"
            )  # a string that changes nothing still ends what was before
        stays = (
            terminator == "\x1b" or "\x80" <= terminator <= "\x9b" or terminator in "\x9d\x9e\x9f"
        )
        return text, end if stays else end + 1

    def _hold(self, text: str, kind: str) -> None:
        if len(text) > MAX_HELD:
            text = _FORGOTTEN.get(kind, _IGNORED_STRING)
        self._rest = text
