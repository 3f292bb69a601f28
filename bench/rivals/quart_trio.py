"""Quart-Trio under Hypercorn: the framework that Trunkline's API runs on."""

from __future__ import annotations

from bench.rivals.library import library

QUART_TRIO = library(
    "quart-trio", "Quart-Trio/Hypercorn relay", "relay_quart_trio.py", "quart_trio", "hypercorn"
)
