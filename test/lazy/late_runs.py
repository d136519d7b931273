# SPDX-License-Identifier: Apache-2.0
"""A small untrained network, random images, and runs in which something comes late."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import torch
from random_clip import TINY, image, mask

from lazyxmem_ros.lazy import (
    SECOND,
    Correction,
    Evidence,
    IouPredictor,
    LazyConfig,
    LazyTracker,
    Source,
)
from lazyxmem_ros.xmem import XMem, XMemTracker

FRAME_TIME = SECOND // 10
CONFIG = LazyConfig(
    operator_corrections=False,
    pseudo_corrections=False,
    hold_entropy=math.inf,
    lost_after=0,
    state_period=SECOND // 2,
    catch_up_budget=0.0,
)


NOTHING = Evidence(**{entry.name: 0.0 for entry in fields(Evidence)})
EVERYTHING = Evidence(**{entry.name: 1.0 for entry in fields(Evidence)})
CALIBRATION = IouPredictor(
    mean=NOTHING, scale=EVERYTHING, weight=replace(EVERYTHING, strangeness=-0.5), bias=-5.0
)
"""Of no network: it lets everything weigh, and comes out on either side of 0.5."""


FIRST = {1: mask(30, 10)}
SECOND_ONE = {2: mask(2, 44)}


def start(
    network: XMem, config: LazyConfig = CONFIG, iou_predictor: IouPredictor | None = None
) -> LazyTracker:
    """Objects 1 and 2, shown on frame 0."""
    lazy = LazyTracker(XMemTracker(network, TINY), config, iou_predictor=iou_predictor)
    lazy.step(image(0), 0, masks={1: mask(0, 0), 2: mask(20, 30)})
    return lazy


def step(lazy: LazyTracker, index: int, **kwargs):
    return lazy.step(image(index), index * FRAME_TIME, **kwargs)


def correction(index: int, masks, source=Source.OPERATOR) -> Correction:
    return Correction(index * FRAME_TIME, masks, source)


def run(lazy: LazyTracker, answers, last: int, **given):
    """Steps to frame `last`; `answers`: after which frame -> correction."""
    results = {}
    for index in range(1, last + 1):
        results[index] = step(lazy, index, **given.get(f"at{index}", {}))
        for outcome in [lazy.apply(a) for a in answers.get(index, [])]:
            assert outcome.applied, outcome.reason
    return results


def probabilities(lazy: LazyTracker) -> torch.Tensor:
    assert lazy.tracker.frame is not None
    return lazy.tracker.frame.probabilities


def same(a: LazyTracker, b: LazyTracker) -> bool:
    return torch.equal(probabilities(a), probabilities(b))
