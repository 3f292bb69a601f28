"""What is measured: one module a family."""

from __future__ import annotations

from bench.flows import bulk, contents, memory, mux, round_trips, trunks
from bench.measure import Flow

FLOWS: tuple[Flow, ...] = (
    *bulk.FLOWS,
    *round_trips.FLOWS,
    *mux.FLOWS,
    *contents.FLOWS,
    *trunks.FLOWS,
    *memory.FLOWS,
)
