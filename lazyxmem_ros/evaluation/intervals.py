# SPDX-License-Identifier: Apache-2.0
"""How far means over a few sequences can be trusted: bootstrap intervals (Efron, 1979)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

CONFIDENCE = 0.9
"""Share of the resampled means that lie in the interval."""
RESAMPLES = 2000
SEED = 0
LOW, HIGH = "_low", "_high"
"""Suffixes of the columns with an interval's bounds."""


def interval(values: Sequence[float], groups: Sequence[object]) -> tuple[float, float]:
    """Bounds of the mean of the values when the groups that they belong to are drawn anew, with
    replacement. NaN values are left out; the bounds are NaN with fewer than two groups.
    """
    table = pd.DataFrame({"value": values, "group": list(groups)}).dropna()
    sums = table.groupby("group", sort=True)["value"].agg(["sum", "count"]).to_numpy(float)
    if len(sums) < 2:
        return float("nan"), float("nan")
    drawn = sums[_draws(len(sums))].sum(1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [tail, 1 - tail])
    return float(low), float(high)


def intervals(objects: pd.DataFrame, columns: Sequence[str]) -> dict[str, float]:
    """The bounds of the mean over objects of each column, drawn anew by sequence."""
    found: dict[str, float] = {}
    for column in columns:
        low, high = interval(objects[column].to_list(), objects["sequence"].to_list())
        found |= {column + LOW: low, column + HIGH: high}
    return found


def _draws(count: int) -> NDArray[np.intp]:
    """RESAMPLES times so many numbers below `count`; always the same ones."""
    return np.random.default_rng(SEED).integers(0, count, (RESAMPLES, count))
