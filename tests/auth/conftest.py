from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from auth.keys import Keyring, generate_key
from tests.testing.wall_clock import WallClock


@pytest.fixture
def clock() -> WallClock:
    return WallClock()


@pytest.fixture
def entropy() -> Callable[[int], bytes]:
    return random.Random(7).randbytes


@pytest.fixture
def keyring(clock: WallClock, entropy: Callable[[int], bytes]) -> Keyring:
    return Keyring([generate_key(clock=clock, entropy=entropy)])
