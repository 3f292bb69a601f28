"""docs/spec/trunk-1.md says what the code does: every frame, who sends it, every key."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from relay.endpoint import FileOperation, Kind
from relay.limits import StreamLimits
from relay.link import DEAD_AFTER, LEAVE_AFTER, PING_AFTER, STALLED_AFTER
from relay.protocol.connection import MAX_BACKLOG, MAX_STREAMS
from relay.protocol.frames import MAX_CONTROL_BYTES, MAX_DATA_BYTES, FrameType
from relay.protocol.messages import (
    MAX_SCREEN,
    MAX_SCREEN_PART,
    MAX_TEXT,
    MESSAGES,
    Attach,
    Attached,
    FileStart,
    Message,
    Resume,
    Start,
)
from relay.protocol.states import ATTACHER, OWNER, State
from relay.protocol.windows import INITIAL_WINDOW, MAX_GROWTH, MAX_WINDOW, RENEW_BYTES

TEXT = (Path(__file__).parents[3] / "docs" / "spec" / "trunk-1.md").read_text()
KEY = re.compile(r"`(\w+)`")
KIB, MIB = 1024, 1024 * 1024


def section(heading: str) -> str:
    """Return what is between a heading and the next one."""
    after = TEXT.split(f"\n{heading}\n", 1)[1]
    return re.split(r"\n##+ ", after, maxsplit=1)[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of a table's rows, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells[1:] if not set(row[0]) <= {"-"}]


def keys_of(struct: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for field in msgspec.structs.fields(struct)}


FRAMES = {row[1]: row for row in rows(section("## 2. Frames")) if row[0].startswith("0x")}


def test_every_type_of_frame_has_its_row() -> None:
    found = {name: int(row[0], 16) for name, row in FRAMES.items()}
    assert found == {type_.name: int(type_) for type_ in FrameType}
    assert set(MESSAGES) == set(FrameType) - {FrameType.DATA}


@pytest.mark.parametrize("type_", MESSAGES)
def test_every_payload_has_the_keys_of_the_table(type_: FrameType) -> None:
    payload = FRAMES[type_.name][5]
    if payload == "map, § 5":
        assert type_ in {FrameType.ATTACH, FrameType.ATTACHED}
    else:
        assert set(KEY.findall(payload)) == keys_of(MESSAGES[type_])


@pytest.mark.parametrize("type_", FrameType)
def test_who_may_send_it(type_: FrameType) -> None:
    _, _, stream, channel, sender, _ = FRAMES[type_.name]
    of_link = {FrameType.HELLO, FrameType.PING, FrameType.PONG, FrameType.GOAWAY}
    assert (stream == "–") == (type_ in of_link)
    assert channel == "–" or stream == "yes"
    if type_ in of_link:
        assert sender == "both"
        return
    to_attacher = any(type_ in row for row in ATTACHER.values())
    to_owner = any(type_ in row for row in OWNER.values())
    if type_ is FrameType.ATTACH:  # it makes the stream id that the tables are about
        to_owner = True
    by = {(True, True): "both", (True, False): "owner", (False, True): "attacher"}
    assert by[to_attacher, to_owner] == sender


@pytest.mark.parametrize(
    ("heading", "message"), [("### ATTACH", Attach), ("### ATTACHED", Attached)]
)
def test_every_key_of_a_request_and_its_answer(heading: str, message: type[Message]) -> None:
    named = [key for row in rows(section(heading)) for key in KEY.findall(row[0])]
    assert len(named) == len(set(named))
    assert set(named) == keys_of(message)


@pytest.mark.parametrize(("key", "struct"), [("start", Start), ("resume", Resume)])
def test_every_key_of_the_maps_within_a_request(key: str, struct: type[msgspec.Struct]) -> None:
    (row,) = (row for row in rows(section("### ATTACH")) if row[0] == f"`{key}`")
    kinds = section("## 6. Kinds")
    for name in keys_of(struct):
        assert f"`{name}`" in row[1] or f"`start` has `{name}`" in kinds or name in {"path", "file"}
    assert "`start` has `port` (on the loopback of the sandbox) or `path`" in kinds
    assert "`start` has the map `file`" in kinds


def test_every_key_of_an_operation_on_files() -> None:
    table = rows(section("## 6. Kinds"))
    assert {key for row in table for key in KEY.findall(row[0])} == keys_of(FileStart)
    (operations,) = (row[2] for row in table if row[0] == "`operation`")
    assert set(KEY.findall(operations)) == set(FileOperation)


def test_every_kind_has_its_paragraph() -> None:
    kinds = re.findall(r"^\*\*([a-z, ]+)\*\* —", section("## 6. Kinds"), re.MULTILINE)
    assert {kind for group in kinds for kind in group.split(", ")} == set(Kind)


def test_every_state_but_the_last_hears_of_the_end() -> None:
    for table in (ATTACHER, OWNER):
        for state in set(table) - {State.ENDED}:
            assert State.ENDED in table[state].values()


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (f"at most {MAX_DATA_BYTES // MIB} MiB of bytes", 1 * MIB),
        (f"payload has at most {MAX_CONTROL_BYTES // KIB} KiB", MAX_CONTROL_BYTES),
        (f"one SCREEN has at most {MAX_SCREEN_PART // KIB} KiB", MAX_SCREEN_PART),
        (f"all of one screen\n{MAX_SCREEN // MIB} MiB", MAX_SCREEN),
        (f"at most {MAX_STREAMS} open streams", MAX_STREAMS),
        (f"at most\n{MAX_TEXT} characters", MAX_TEXT),
        (f"nothing for {PING_AFTER:.0f} s sends PING", PING_AFTER),
        (f"has come for {DEAD_AFTER:.0f} s is dead", DEAD_AFTER),
        (f"after {LEAVE_AFTER:.0f} s it may close", LEAVE_AFTER),
        (f"write nothing for {STALLED_AFTER:.0f} s, or {MAX_BACKLOG // MIB} MiB", STALLED_AFTER),
        (f"or {RENEW_BYTES // KIB} KiB if that is less", RENEW_BYTES),
        (f"{INITIAL_WINDOW // KIB} KiB are a good beginning", INITIAL_WINDOW),
        (f"(here: {MAX_WINDOW // MIB} MiB, and\n  {MAX_GROWTH // MIB} MiB by", MAX_GROWTH),
        (
            f"({StreamLimits().linger:.0f} s; {StreamLimits().connection_linger / 60:.0f} minutes",
            30,
        ),
        (f"kept for a while ({StreamLimits().retention / 60:.0f} minutes)", 600),
    ],
)
def test_the_limits(words: str, value: float) -> None:
    assert value > 0
    assert words in TEXT
