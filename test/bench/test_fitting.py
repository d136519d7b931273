# SPDX-License-Identifier: Apache-2.0
"""Benchmarks that build something of the product's parts still fit it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import snapshots, tracking
from lazyxmem_ros.weights import EMBEDDED_INTERNAL_SIZE, locate
from lazyxmem_ros.xmem import XMem, load_network

FRAMES = 4
"""Besides those that warm up: on these frames the gates leave something out, if there are any."""
PERIOD_S = 1e-3


@pytest.mark.slow
def test_what_is_compared_in_speed_makes_the_same_masks() -> None:
    rows = tracking.compared(load_network(locate("")), EMBEDDED_INTERNAL_SIZE, 1, FRAMES)
    assert {tracking.PLAIN, "ours, torch"} <= {row["by"] for row in rows}


def test_snapshots_are_taken_of_a_full_memory(
    small_network: XMem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "INTERNAL_SIZE", 32)
    times = snapshots.Times()
    bench = snapshots.Bench(small_network, snapshots.filled(small_network), tmp_path)
    bench.turn(2, times, period=PERIOD_S)
    bench.close()
    assert times.copies
    assert times.writes
