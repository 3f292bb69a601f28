"""The owner's side of trunk/1 behind the stand-in server: one shell, and links to it."""

from __future__ import annotations

import secrets
import struct
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgpack
import trio

HEADER = struct.Struct("!BBBxII")
(HELLO, DATA, CREDIT, GAP, FIN, ATTACH, ATTACHED, REFUSED, DETACH, CLOSED, EXIT, RESIZE, SIGNAL) = (
    range(13)
)
PING, PONG, GOAWAY, SCREEN = 13, 14, 15, 17
INPUT_WINDOW = 64 * 1024
PROMPT = b"\x1b[32mstand-in\x1b[0m:\x1b[34m~\x1b[0m$ "


@dataclass
class Shell:
    """One stream: a line editor that echoes and knows a few words, and the output it has written."""

    name: str = field(default_factory=lambda: secrets.token_hex(8))
    output: bytearray = field(default_factory=lambda: bytearray(PROMPT))
    dropped: int = 0
    line: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)
    accepted: dict[str, int] = field(default_factory=dict)
    signals: list[str] = field(default_factory=list)
    size: tuple[int, int] = (80, 24)
    exit: int | None = None

    def type(self, data: bytes) -> None:
        self.received += data
        for byte in data:
            if byte == 0x0D:
                line, self.line = self.line.decode(errors="replace"), bytearray()
                self.output += b"\r\n"
                self.run(line)
                if self.exit is None:
                    self.output += PROMPT
            elif byte == 0x7F:
                if self.line:
                    del self.line[-1]
                    self.output += b"\b \b"
            elif byte >= 0x20:
                self.line.append(byte)
                self.output.append(byte)
            else:
                self.output += b"^%c" % (byte + 0x40)

    def run(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        match word:
            case "":
                pass
            case "exit":
                self.exit = int(rest or 0)
            case "size":
                self.output += b"%d %d\r\n" % self.size
            case "flood":
                for n in range(int(rest)):
                    self.output += b"line %d of a flood\r\n" % n
            case "ask":
                # Questions that a terminal answers: DA1, DSR, OSC 11, DECRQM, focus, DECRQSS.
                self.output += (
                    b"asked\x1b[c\x1b[6n\x1b]11;?\x07\x1b[?2026$p\x1b[?1004h\x1bP$qm\x1b\\\r\n"
                )
            case "colours":
                for n in range(16):
                    self.output += b"\x1b[48;5;%dm  \x1b[0m \x1b[38;5;%dmcolour %d\x1b[0m\r\n" % (
                        (n,) * 3
                    )
            case _:
                self.output += f"{line}: not found 日本 🚀 é\r\n".encode()


class Server(Protocol):
    """What a link needs of the server around it."""

    shells: dict[str, Shell]
    links: set[Link]
    attaches: list[dict[str, Any]]
    complaints: list[dict[str, Any]]
    refusal: str
    screen: tuple[bytes, int, int] | None

    def pump(self, session: str) -> None: ...


class Link:
    """One WebSocket: frames in, frames out, one attachment at most."""

    def __init__(self, server: Server, session: str, mode: str) -> None:
        self.server = server
        self.session = session
        self.mode = mode
        self.out = bytearray()
        self.wake = trio.Event()
        self.id = 0
        self.attachment = ""
        self.sent = self.limit = self.granted = self.live = 0
        self.attached_mode = "control"
        self.input_open = self.ended = False
        self.frame(HELLO, {"version": 1, "software": "stand-in"})

    @property
    def shell(self) -> Shell | None:
        return self.server.shells.get(self.session)

    def frame(self, type_: int, fields: dict[str, Any], id_: int = 0, channel: int = 0) -> None:
        payload = msgpack.packb(fields)
        self.out += HEADER.pack(type_, 0, channel, id_, len(payload)) + payload
        self.wake.set()

    def receive(self, message: bytes) -> None:
        position = 0
        while position < len(message):
            type_, _, channel, id_, length = HEADER.unpack_from(message, position)
            payload = message[position + 12 : position + 12 + length]
            assert len(payload) == length, "whole frames in a message"
            position += 12 + length
            if type_ == DATA:
                (offset,) = struct.unpack_from("!Q", payload)
                self.take(id_, channel, offset, payload[8:])
            else:
                fields = msgpack.unpackb(payload, strict_map_key=False)
                self.control(type_, id_, channel, fields)

    def take(self, id_: int, channel: int, offset: int, data: bytes) -> None:
        shell = self.shell
        if id_ != self.id or shell is None:
            return
        assert channel == 0
        assert self.attached_mode == "control"
        assert offset == shell.accepted[self.attachment], "input is neither repeated nor skipped"
        assert offset + len(data) <= self.granted
        shell.accepted[self.attachment] = offset + len(data)
        shell.type(data)
        self.granted = offset + len(data) + INPUT_WINDOW
        self.frame(CREDIT, {"ack": offset + len(data), "up_to": self.granted}, id_, 0)
        self.server.pump(self.session)

    def control(self, type_: int, id_: int, channel: int, fields: dict[str, Any]) -> None:
        shell = self.shell
        if type_ == PING:
            self.frame(PONG, {"id": fields["id"]})
        elif type_ == ATTACH:
            self.attach(id_, fields)
        elif type_ == GOAWAY:
            self.server.complaints.append(fields)
        elif id_ != self.id or shell is None:
            return
        elif type_ == CREDIT and channel == 1:
            self.limit = fields["up_to"]
            if not self.input_open and fields["ack"] >= self.live:
                self.open_input(shell)
                self.frame(CREDIT, {"up_to": self.granted}, id_, 0)
            self.pump()
        elif type_ == RESIZE:
            shell.size = fields["columns"], fields["rows"]
        elif type_ == SIGNAL:
            shell.signals.append(fields["name"])
        elif type_ == DETACH:
            self.close("detached")

    def open_input(self, shell: Shell) -> None:
        self.input_open = True
        self.granted = shell.accepted[self.attachment] + INPUT_WINDOW

    def attach(self, id_: int, fields: dict[str, Any]) -> None:
        server, mode = self.server, fields["mode"]
        shell = self.shell
        start = fields.get("start")
        if mode == "control" and self.mode == "view":
            return self.frame(REFUSED, {"code": "forbidden", "message": "view only"}, id_)
        if server.refusal and not fields.get("takeover") and mode == "control":
            return self.frame(REFUSED, {"code": server.refusal}, id_)
        if resume := fields.get("resume"):
            if shell is None or resume["stream"] != shell.name:
                return self.frame(REFUSED, {"code": "gone"}, id_)
        elif shell is None or (shell.exit is not None and start and start.get("restart")):
            if start is None:
                return self.frame(REFUSED, {"code": "not_found"}, id_)
            server.shells[self.session] = shell = Shell()
        assert shell is not None
        server.attaches.append(fields)
        for other in list(server.links):
            if other is self or other.session != self.session:
                continue
            if other.attachment == fields["attachment"]:
                other.close("superseded")
            elif fields.get("takeover") and other.attached_mode == "control":
                other.close("taken_over")
        self.id, self.attachment, self.attached_mode = id_, fields["attachment"], mode
        self.ended = False
        resumed = self.attachment in shell.accepted
        accepted = shell.accepted.setdefault(self.attachment, 0)
        end = shell.dropped + len(shell.output)
        have = resume["have"][1] if resume else shell.dropped
        begin = max(have, shell.dropped)
        screen = server.screen if fields.get("replay") == "screen" and not resume else None
        if screen is not None:
            have = begin = end
        self.live = 0 if resume else end
        self.sent, self.limit = have, begin + fields["window"][1]
        self.input_open = begin >= self.live
        self.granted = accepted
        if self.input_open:
            self.open_input(shell)
        if size := fields.get("columns"):
            shell.size = size, fields["rows"]
        answer = {
            "stream": shell.name, "tag": fields["tag"], "kind": "pty", "mode": mode, "pid": 4711,
            "started": bool(start) and not resumed, "resumed": resumed, "from": {1: begin},
            "live": self.live, "accepted": accepted, "credit": self.granted,
            "screen": screen is not None,
        }  # fmt: skip
        self.frame(ATTACHED, answer, id_)
        if screen is not None:
            data, columns, rows = screen
            for start in range(0, len(data), 1000):
                part = {
                    "data": data[start : start + 1000], "at": end, "columns": columns, "rows": rows,
                    "last": start + 1000 >= len(data),
                }  # fmt: skip
                self.frame(SCREEN, part, id_, 1)
        self.pump()
        return None

    def pump(self) -> None:
        """Queue the output that credit allows."""
        shell = self.shell
        if self.id <= 0 or shell is None:
            return
        if self.sent < shell.dropped:
            self.frame(GAP, {"from": self.sent, "to": shell.dropped}, self.id, 1)
            self.sent = shell.dropped
        end = shell.dropped + len(shell.output)
        while self.sent < min(end, self.limit):
            count = min(end, self.limit, self.sent + 65536) - self.sent
            start = self.sent - shell.dropped
            head = HEADER.pack(DATA, 0, 1, self.id, 8 + count) + struct.pack("!Q", self.sent)
            self.out += head + shell.output[start : start + count]
            self.sent += count
            self.wake.set()
        if shell.exit is not None and self.sent == end and not self.ended:
            self.ended = True
            self.frame(FIN, {"at": end}, self.id, 1)
            self.frame(EXIT, {"code": shell.exit}, self.id)

    def close(self, reason: str) -> None:
        if self.id > 0:
            self.frame(CLOSED, {"reason": reason}, self.id)
            self.id = -1
