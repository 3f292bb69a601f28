"""The words in the document are the words in the code."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

import pytest

from relay.protocol.reasons import CloseReason, Refusal

DOCUMENT = Path(__file__).parents[3] / "docs" / "spec" / "close-reasons.md"


@pytest.mark.parametrize(
    ("words", "heading"), [(CloseReason, "# Close reasons"), (Refusal, "## Refusals")]
)
def test_the_document_explains_every_word(words: type[StrEnum], heading: str) -> None:
    section = DOCUMENT.read_text().split(f"{heading}\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(words)
