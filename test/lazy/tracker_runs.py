# SPDX-License-Identifier: Apache-2.0
"""Runs of a LazyTracker on scripted uncertainty."""

from __future__ import annotations

import math

import numpy as np
from scripted_tracker import FRAME_TIME, SECOND, SIZE, ScriptedTracker, square

from lazyxmem_ros.lazy import LazyConfig, LazyTracker, Source

HERE, THERE = square(8), square(40)
EMPTY = np.zeros(SIZE, bool)
QUIET = LazyConfig.paper(
    operator_corrections=False, pseudo_corrections=False, hold_entropy=math.inf
)
OPERATOR, PSEUDO = Source.OPERATOR, Source.PSEUDO


def one(*entropies, mask=HERE):
    """A script of one object 1."""
    return [{1: (mask, entropy)} for entropy in entropies]


def stamp_of(index: int) -> int:
    return SECOND + index * FRAME_TIME


def start(script, config=QUIET, masks=None):
    """A LazyTracker that has seen the first frame of the script."""
    tracker = ScriptedTracker(script)
    lazy = LazyTracker(tracker, config)
    image = np.zeros((*SIZE, 3), np.uint8)
    given = masks or {i: mask for i, (mask, _) in script[0].items()}
    lazy.step(image, stamp_of(0), masks=given)
    return lazy, tracker


def advance(lazy, index, **options):
    return lazy.step(np.zeros((*SIZE, 3), np.uint8), stamp_of(index), **options)


def run(script, config=QUIET, masks=None):
    lazy, tracker = start(script, config, masks)
    results = [advance(lazy, index) for index in range(1, len(script))]
    lazy.close()
    return results, tracker.calls
