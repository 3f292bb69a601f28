"""What a request head says, judged before anything acts on it.

h11 parses, and is lenient where RFC 9112 lets a recipient be.  A request that two parsers on its way
may read differently can smuggle another one past the first, so the shapes that make parsers differ
are refused here, some of them on the raw bytes because h11 has already smoothed them over.

Pure: no I/O.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

import h11

from relay.websocket.handshake import VERSION, is_valid_key, parse_subprotocols

Fields = tuple[tuple[bytes, bytes], ...]
"""Header fields in order, names in lower case."""

_BARE_LINE_END = re.compile(rb"(?<!\r)\n|\r(?!\n)")
_FOLDED_LINE = re.compile(rb"\n[ \t]")
_CONTENT_LENGTH = re.compile(rb"\n(?i:content-length)[ \t]*:([^\r\n]*)")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#]+)(.*)", re.DOTALL)
_TLS_HANDSHAKE = b"\x16\x03"


class BadRequest(Exception):
    """The request is answered with `status` and `detail`, and the connection closed."""

    def __init__(self, status: int, detail: str, fields: Fields = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.fields = fields


@dataclass(frozen=True, slots=True)
class Head:
    """A request without its body."""

    method: str
    raw_path: bytes
    query: bytes
    fields: Fields
    http_version: str
    authority: bytes | None = None
    """The authority of an absolute-form target, which counts instead of Host (RFC 9112 §3.2.2)."""

    @property
    def path(self) -> str:
        """The path, percent-decoded."""
        return unquote(self.raw_path.decode("ascii"))

    def values(self, name: bytes) -> list[bytes]:
        """Return the values of all fields called `name` (in lower case)."""
        return [value for field, value in self.fields if field == name]

    def items(self, name: bytes) -> list[bytes]:
        """Return the members, in lower case, of the comma-separated list that `name` holds."""
        members = (m.strip().lower() for v in self.values(name) for m in v.split(b","))
        return [member for member in members if member]

    @property
    def hosts(self) -> list[bytes]:
        """What the client calls this server; exactly one value in a proper request."""
        return self.values(b"host") if self.authority is None else [self.authority]

    @property
    def has_body(self) -> bool:
        """Whether a body follows."""
        lengths = self.values(b"content-length")
        return bool(self.values(b"transfer-encoding")) or any(int(v) for v in lengths)

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for a 100 before it sends the body (RFC 9110 §10.1.1)."""
        return self.http_version == "1.1" and b"100-continue" in self.items(b"expect")

    @property
    def wants_websocket(self) -> bool:
        """Whether this asks for a WebSocket (RFC 6455 §4.2.1, items 1, 3 and 4)."""
        return (
            self.method == "GET"
            and self.http_version == "1.1"
            and b"websocket" in self.items(b"upgrade")
            and b"upgrade" in self.items(b"connection")
        )


@dataclass(frozen=True, slots=True)
class Upgrade:
    """What the opening handshake of a WebSocket asks for."""

    key: str
    subprotocols: tuple[str, ...]


def explain_garbage(raw: bytes, error: h11.RemoteProtocolError) -> BadRequest:
    """Return what to tell somebody whose bytes h11 could not parse."""
    if raw.startswith(_TLS_HANDSHAKE):
        return BadRequest(400, "This port speaks plain HTTP, not TLS: use http:// or ws://.")
    if error.error_status_hint == 431:
        return BadRequest(431, "The request head is too large.")
    return BadRequest(error.error_status_hint, f"This is not a valid HTTP/1.1 request: {error}.")


def read_head(raw: bytes, request: h11.Request) -> Head:
    """Return the head that h11 parsed out of `raw`.

    Raises:
      BadRequest: it can be read in two ways, or its target is of a form that is not served.
    """
    fields = tuple((bytes(name), bytes(value)) for name, value in request.headers)
    version = request.http_version.decode("ascii")
    if not version.startswith("1."):
        raise BadRequest(505, f"HTTP/{version} is not spoken here; HTTP/1.1 is.")
    version = min(version, "1.1")  # A later minor version is treated as ours (RFC 9110 §2.5).
    _check_framing(raw, fields, version)
    authority, target = _split_target(request.target)
    path, _, query = target.partition(b"?")
    method = request.method.decode("ascii")
    return Head(method, path, query, fields, version, authority)


def _check_framing(raw: bytes, fields: Fields, version: str) -> None:
    if _BARE_LINE_END.search(raw):
        raise BadRequest(400, "A line of the request head does not end in CR LF.")
    if _FOLDED_LINE.search(raw):
        raise BadRequest(400, "A header field is folded over several lines; put it on one.")
    lengths = _CONTENT_LENGTH.findall(raw)
    if len(lengths) > 1 or any(b"," in length for length in lengths):
        raise BadRequest(400, "The request has more than one Content-Length header.")
    names = {name for name, _ in fields}
    if b"transfer-encoding" in names:
        if b"content-length" in names:
            raise BadRequest(400, "The request has both Content-Length and Transfer-Encoding.")
        if version != "1.1":
            raise BadRequest(400, "HTTP/1.0 knows no Transfer-Encoding.")


def _split_target(target: bytes) -> tuple[bytes | None, bytes]:
    """Return the authority, where the target has one, and the path with the query."""
    if b"#" in target:
        raise BadRequest(400, "The request target must not have a fragment.")
    if target.startswith(b"/"):
        return None, target
    if match := _ABSOLUTE.fullmatch(target):
        rest = match[2]
        return match[1], rest if rest.startswith(b"/") else b"/" + rest
    raise BadRequest(400, "The request target must be a path, such as /healthz.")


def read_upgrade(head: Head) -> Upgrade:
    """Return what the opening handshake in `head` asks for (RFC 6455 §4.2.1).

    Raises:
      BadRequest: it is not a proper one.
    """
    if head.has_body:
        raise BadRequest(400, "A WebSocket handshake has no body.")
    if head.values(b"sec-websocket-version") != [VERSION.encode()]:
        raise BadRequest(
            426,
            f"Only version {VERSION} of the WebSocket protocol is spoken here.",
            ((b"sec-websocket-version", VERSION.encode()), (b"upgrade", b"websocket")),
        )
    keys = [value.decode("latin-1") for value in head.values(b"sec-websocket-key")]
    if len(keys) != 1 or not is_valid_key(keys[0]):
        raise BadRequest(400, "A WebSocket handshake has one Sec-WebSocket-Key of 16 bytes.")
    offers = [value.decode("latin-1") for value in head.values(b"sec-websocket-protocol")]
    try:
        return Upgrade(keys[0], parse_subprotocols(offers))
    except ValueError as error:
        raise BadRequest(400, f"Bad Sec-WebSocket-Protocol: {error}.") from None
