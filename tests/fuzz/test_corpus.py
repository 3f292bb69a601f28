"""Feeds the committed corpus to the fuzz targets, and mutations of it, without Atheris."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
MUTATIONS = 40


@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name: str) -> None:
    files = sorted((CORPUS / name).iterdir())
    assert len(files) >= 5
    chance = random.Random(name)
    for file in files:
        data = file.read_bytes()
        TARGETS[name](data)
        for _ in range(MUTATIONS):
            mutant = bytearray(data)
            for _ in range(chance.randint(1, 4)):
                position = chance.randrange(len(mutant) + 1)
                match chance.randrange(3):
                    case 0:
                        mutant[position:position] = chance.randbytes(chance.randint(1, 4))
                    case 1:
                        del mutant[position : position + chance.randint(1, 8)]
                    case _ if position < len(mutant):
                        mutant[position] = chance.randrange(256)
                    case _:
                        pass
            TARGETS[name](bytes(mutant))
