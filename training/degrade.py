# SPDX-License-Identifier: Apache-2.0
"""Broken masks: what a corrector is asked to put right."""

from __future__ import annotations

import cv2
import numpy as np

from lazyxmem_ros.correction.base import BoolMask

KINDS = ("half", "shift", "leak", "grow", "shrink", "coarse", "neighbour", "stolen", "good")
KIND_SHARES = (0.15, 0.34, 0.08, 0.03, 0.03, 0.06, 0.09, 0.06, 0.16)


def break_mask(rng: np.random.Generator, truth: BoolMask, neighbour: BoolMask) -> BoolMask:
    """A mask as tracking might have left it.

    A part missing, shifted, leaked somewhere or into the neighbour (another object's mask, maybe
    empty), stolen by the neighbour, grown, shrunk, coarse, or good.
    """
    height, width = truth.shape
    rows, columns = np.nonzero(truth)
    if rows.size == 0:
        return truth.copy()
    extent = max(int(np.ptp(rows)), int(np.ptp(columns)), 4)
    kind = rng.choice(KINDS, p=KIND_SHARES)
    if kind in ("neighbour", "stolen") and not neighbour.any():
        kind = "leak"
    broken = truth.copy()
    ys, xs = np.mgrid[0:height, 0:width]
    if kind == "half":
        angle = rng.uniform(0, 2 * np.pi)
        along = (xs - columns.mean()) * np.cos(angle) + (ys - rows.mean()) * np.sin(angle)
        broken &= along < rng.uniform(-0.2, 0.3) * extent
    elif kind == "shift":
        dx, dy = rng.uniform(-0.4, 0.4, 2) * extent
        move = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
        broken = cv2.warpAffine(truth.astype(np.uint8), move, (width, height)) > 0
    elif kind == "leak":
        spot = int(rng.integers(rows.size))
        radius = int(max(3, extent * rng.uniform(0.2, 0.5)))
        centre = (
            int(columns[spot] + rng.uniform(-0.5, 0.5) * extent),
            int(rows[spot] + rng.uniform(-0.5, 0.5) * extent),
        )
        axes = (radius, max(2, int(radius * rng.uniform(0.4, 1))))
        leak = np.zeros((height, width), np.uint8)
        cv2.ellipse(leak, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
        broken |= leak > 0
    elif kind in ("grow", "shrink"):
        side = 1 + 2 * int(max(1, extent * rng.uniform(0.03, 0.1)))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
        operation = cv2.dilate if kind == "grow" else cv2.erode
        broken = operation(truth.astype(np.uint8), kernel) > 0
    elif kind == "coarse":
        small = max(4, int(min(height, width) / rng.uniform(0.06, 0.2) / max(1, extent)))
        blurred = cv2.resize(truth.astype(np.float32), (small, small), interpolation=cv2.INTER_AREA)
        noisy = blurred + rng.normal(0, 0.15, blurred.shape).astype(np.float32)
        broken = cv2.resize(noisy, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5
    elif kind == "neighbour":
        broken |= neighbour
    elif kind == "stolen":
        broken = neighbour.copy()
    return np.asarray(broken, dtype=np.bool_)
