from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.replay_filter import MAX_HELD, ReplayFilter

ST = b"\x1b\\"

QUESTIONS = [
    b"\x05",  # ENQ
    b"\x1bZ",  # DECID
    b"\x1b[c",  # DA1
    b"\x1b[0c",
    b"\x1b[>c",  # DA2
    b"\x1b[>0c",
    b"\x1b[=c",  # DA3
    b"\x1b[5n",  # DSR
    b"\x1b[6n",  # CPR
    b"\x1b[?6n",
    b"\x1b[?996n",  # colour scheme
    b"\x1b[x",  # DECREQTPARM
    b"\x1b[1x",
    b"\x1b[>q",  # XTVERSION
    b"\x1b[>0q",
    b"\x1b[?u",  # kitty keyboard
    b"\x1b[18t",  # size in characters
    b"\x1b[14;2t",
    b"\x1b[21t",  # the title
    b"\x1b[?1;1;0S",  # XTSMGRAPHICS
    b"\x1b[?2026$p",  # DECRQM
    b"\x1b[4$p",
    b"\x1b[1$w",  # DECRQPSR
    b"\x1b[1$u",  # DECRQTSR
    b"\x1b[1;1;1;1;1;1*y",  # DECRQCRA
    b"\x1b]10;?\x07",  # foreground
    b"\x1b]11;?" + ST,
    b"\x1b]4;1;?\x07",  # palette
    b"\x1b]52;c;?\x07",  # clipboard
    b"\x1bP$qm" + ST,  # DECRQSS
    b"\x1bP+q544e" + ST,  # XTGETTCAP
    b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA" + ST,  # kitty graphics
]

HARMLESS = [
    b"plain text",
    "Größe – 𝄞".encode(),
    b"\r\n\t\x07\x08\x00",
    b"\xff\xfe\x80",
    b"\x1b[31m",
    b"\x1b[2J\x1b[H",
    b"\x1b[?1049h",
    b"\x1b[?25l",
    b"\x1b[>4;2m",  # modifyOtherKeys
    b"\x1b[>4n",  # the same, off
    b"\x1b[2 q",  # cursor shape
    b"\x1b[1q",  # lights
    b"\x1b[>1u",  # kitty keyboard: push
    b"\x1b[<u",  # and pop
    b"\x1b[u",  # restore cursor
    b"\x1b[3S",  # scroll
    b"\x1b[8;24;80t",  # resize
    b"\x1b[22;0t",  # save the title
    b"\x1b[2;3r",
    b"\x1b[!p",  # soft reset
    b'\x1b[62;1"p',
    b"\x1b]0;title\x07",
    b"\x1b]0;a title?\x07",
    b"\x1b]8;;http://x/?a=b" + ST,
    b"\x1b]10;#ffffff\x07",
    b"\x1b]52;c;Zm9v\x07",
    b"\x1bPq#0;2;0;0;0" + ST,  # sixel
    b"\x1b_Gf=24,a=T;AAAA" + ST,
    b"\x1b7\x1b8\x1bc\x1b(B",
]


def filtered(*pieces: bytes) -> bytes:
    filter_ = ReplayFilter()
    return b"".join(map(filter_.feed, pieces)) + filter_.flush()


@pytest.mark.parametrize("question", QUESTIONS)
def test_questions_are_taken_out(question: bytes) -> None:
    assert filtered(question) == b""
    assert filtered(b"before" + question + b"after") == b"beforeafter"
    assert filtered(question * 3) == b""


@pytest.mark.parametrize("output", HARMLESS)
def test_everything_else_stays(output: bytes) -> None:
    assert filtered(output) == output
    assert filtered(b"before" + output + b"after") == b"before" + output + b"after"


def test_pieces_of_any_size() -> None:
    output = b"".join(a + b for a, b in zip(QUESTIONS, HARMLESS, strict=False))
    expected = b"".join(HARMLESS[: len(QUESTIONS)])
    for size in (1, 2, 3, 7, len(output)):
        pieces = [output[n : n + size] for n in range(0, len(output), size)]
        assert filtered(*pieces) == expected


@given(
    st.lists(st.sampled_from(QUESTIONS + HARMLESS) | st.binary(max_size=8), max_size=20),
    st.integers(min_value=1, max_value=9),
)
def test_how_it_is_cut_makes_no_difference(parts: list[bytes], size: int) -> None:
    output = b"".join(parts)
    pieces = [output[n : n + size] for n in range(0, len(output), size)]
    assert filtered(*pieces) == filtered(output)


def test_what_is_unfinished_waits() -> None:
    filter_ = ReplayFilter()
    assert filter_.feed(b"text\x1b[") == b"text"
    assert filter_.feed(b"31") == b""
    assert filter_.feed(b"mred") == b"\x1b[31mred"
    assert filter_.feed(b"\x1b]11;") == b""
    assert filter_.flush() == b"\x1b]11;"  # its rest comes live
    assert filter_.flush() == b""


def test_what_is_held_is_bounded() -> None:
    filter_ = ReplayFilter()
    start = b"\x1b]0;" + b"x" * (2 * MAX_HELD)
    shown = filter_.feed(start)
    assert shown + filter_.flush() == start
    assert len(shown) >= MAX_HELD


def test_it_takes_time_in_proportion() -> None:
    """Output made to be slow to search is not."""
    import time

    def seconds(output: bytes) -> float:
        filter_ = ReplayFilter()
        began = time.perf_counter()
        for start in range(0, len(output), 4096):
            filter_.feed(output[start : start + 4096])
        return time.perf_counter() - began

    for unit in (b"\x1b[", b"\x1b]", b"\x1bP", b"\x1b[1;", b"\x1b]x\x1b", b"\x1b[?" + b"1" * 50):
        output = unit * (400_000 // len(unit))
        assert seconds(output) < 10
