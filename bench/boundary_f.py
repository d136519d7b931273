# SPDX-License-Identifier: Apache-2.0
"""J and boundary F of a mask pair: ours beside the definition written down plainly.

    tools/run python bench/boundary_f.py [--repeat 30]

Masks are of the generated pond, enlarged to the sizes below, the prediction moved by a few pixels.
The plain F dilates both whole boundary maps; ours looks at the window around both masks. Both run
in turn in this process, on one thread, and must agree exactly.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from lazyxmem_ros.basics import BoolMask
from lazyxmem_ros.data.pond import Scene
from lazyxmem_ros.evaluation.metrics import BOUNDARY_TOLERANCE, boundary_f, region_similarity

SIZES = ((480, 854), (720, 1280), (1080, 1920))
SHIFT = 5
"""Pixels between prediction and truth."""


def plain_boundary_f(prediction: BoolMask, truth: BoolMask) -> float:
    """The definition, on whole images."""
    radius = math.ceil(BOUNDARY_TOLERANCE * math.hypot(*truth.shape))
    edges = []
    for mask in (prediction, truth):
        right = np.pad(mask, ((0, 0), (0, 1)), "edge")[:, 1:]
        below = np.pad(mask, ((0, 1), (0, 0)), "edge")[1:]
        both = np.pad(mask, ((0, 1), (0, 1)), "edge")[1:, 1:]
        edges.append((mask ^ right) | (mask ^ below) | (mask ^ both))
    offsets = np.arange(-radius, radius + 1)
    disc = (offsets[:, None] ** 2 + offsets[None] ** 2 <= radius**2).astype(np.uint8)
    near = [cv2.dilate(edge.astype(np.uint8), disc).astype(bool) for edge in edges]
    precision = (edges[0] & near[1]).sum() / edges[0].sum()
    recall = (edges[1] & near[0]).sum() / edges[1].sum()
    return float(2 * precision * recall / (precision + recall))


def median_ms(function: Callable[[], float], repeat: int) -> float:
    """Median time of a call in ms."""
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=30)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    table = Table(title="a mask pair, ms (median)")
    for heading in ("size", "J", "F", "F, plain", "plain / ours"):
        table.add_column(heading, justify="right")
    labels = Scene().render(20).labels.astype(np.uint8)
    for height, width in SIZES:
        truth = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST) > 0
        prediction = np.roll(truth, (SHIFT, SHIFT), (0, 1))
        assert boundary_f(prediction, truth) == plain_boundary_f(prediction, truth)
        region, ours, plain = (
            median_ms(partial(function, prediction, truth), arguments.repeat)
            for function in (region_similarity, boundary_f, plain_boundary_f)
        )
        times = (f"{value:.2f}" for value in (region, ours, plain))
        table.add_row(f"{height}x{width}", *times, f"{plain / ours:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
