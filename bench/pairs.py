# SPDX-License-Identifier: Apache-2.0
"""Two ways of doing the same, timed in turn: what several benchmarks share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from torch import Tensor


class Pair(NamedTuple):
    """The plain way of doing something, and ours."""

    plain: Callable[[], Tensor]
    ours: Callable[[], Tensor]


def compared(pair: Pair, *, repeat: int, tolerance: float) -> dict[str, object]:
    """Cells of a table: medians of processor time, and the ratio of each run of both.

    Both run once before. Raises RuntimeError where the outcomes differ by more than `tolerance`.
    """
    difference = (pair.plain().float() - pair.ours().float()).abs().max().item()
    if difference > tolerance:
        raise RuntimeError(f"the two ways differ by {difference}")
    times = np.array([[_milliseconds(pair.plain), _milliseconds(pair.ours)] for _ in range(repeat)])
    low, ratio, high = np.quantile(times[:, 0] / times[:, 1], (0.25, 0.5, 0.75))
    plain, ours = np.median(times, axis=0)
    return {
        "plain, ms": f"{plain:.1f}",
        "ours, ms": f"{ours:.1f}",
        "times as fast": f"{ratio:.1f}",
        "quartiles": f"{low:.1f} to {high:.1f}",
        "difference": f"{difference:.0e}",
    }


def _milliseconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return 1e3 * (time.process_time() - start)
