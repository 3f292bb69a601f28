"""Run the unit tests of the page's trunk/1, and compare its msgpack with the one in Python."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgpack
import pytest

HERE = Path(__file__).parent
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(NODE is None, reason="needs Node.js (`node`) on the PATH")


def run_node(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    assert NODE is not None
    return subprocess.run(
        [NODE, *arguments], input=stdin, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.mark.parametrize("name", sorted(path.name for path in HERE.glob("*.test.mjs")))
def test_unit_tests_in_javascript(name: str) -> None:
    result = run_node("--test", HERE / name)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "# pass 0\n" not in result.stdout, "a file without tests proves nothing"


def random_value(rng: random.Random, depth: int = 0) -> Any:
    scalars: list[Any] = [
        None,
        rng.random() < 0.5,
        rng.randrange(2 ** rng.randrange(1, 53)),
        -rng.randrange(1, 2 ** rng.randrange(1, 53)),
        rng.random() * 1e9 + 0.5,
        "é🚀x" * rng.randrange(100),
        rng.randbytes(rng.randrange(400)),
    ]
    if depth < 3 and rng.random() < 0.4:
        count = rng.choice((0, 1, 15, 16, 40))
        if rng.random() < 0.5:
            return [random_value(rng, 3) for _ in range(count)]
        return {f"key {n}": random_value(rng, depth + 1) for n in range(min(count, 20))}
    return rng.choice(scalars)


def test_msgpack_is_the_same_as_in_python() -> None:
    rng = random.Random(7)  # a fixed seed, so that a failure can be repeated
    values = [random_value(rng) for _ in range(2000)]
    lines = "".join(msgpack.packb(value).hex() + "\n" for value in values)
    result = run_node(HERE / "msgpack_peer.mjs", stdin=lines)
    assert result.returncode == 0, result.stderr
    answers = [msgpack.unpackb(bytes.fromhex(line)) for line in result.stdout.split()]
    assert answers == values
