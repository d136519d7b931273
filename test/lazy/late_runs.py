# SPDX-License-Identifier: Apache-2.0
"""A small untrained network, random images, and runs in which something comes late."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache

import torch
from random_clip import TINY, image, mask

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.lazy import (
    Correction,
    Evidence,
    IouPredictor,
    LazyConfig,
    LazyTracker,
    Source,
    StepResult,
    Track,
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

SETTLED = 10
"""Frames after a catch-up, in which working memory (see TINY) is filled with new ones and the old
go into long-term memory."""
LONGEST = 150
"""Frames in which every catch-up of the tests has come to its end."""


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


def catch_up(lazy: LazyTracker, first: int) -> dict[int, StepResult]:
    """Steps from frame `first` on until it has caught up, and `SETTLED` frames more."""
    results: dict[int, StepResult] = {}
    settled = 0
    for index in range(first, first + LONGEST):
        results[index] = step(lazy, index)
        settled += lazy.frames_behind == 0
        if settled > SETTLED:
            return results
    raise AssertionError(f"{lazy.frames_behind} frames behind after {LONGEST} frames")


@dataclass(frozen=True)
class Shown:
    """What a tracker has made of a frame."""

    probabilities: torch.Tensor
    tracks: list[Track]
    memory_tokens: tuple[int, int]


Act = Callable[[LazyTracker], object]


class Instant:
    """A run in which everything is said at once; it goes as far as it is looked at."""

    def __init__(
        self, lazy: LazyTracker, acts: Mapping[int, Sequence[Act]], shown: Mapping = {}
    ) -> None:
        """Args:
        lazy: has seen frame 0.
        acts: after which frame -> what is then done with the tracker.
        shown: with which frame -> masks of new objects.
        """
        self.lazy = lazy
        self._acts, self._shown = acts, shown
        self._frames: list[Shown] = []

    def __getitem__(self, index: int) -> Shown:
        """What was made of frame `index`, 1 or more."""
        for number in range(len(self._frames) + 1, index + 1):
            result = step(self.lazy, number, masks=self._shown.get(number))
            tokens = self.lazy.tracker.memory_tokens
            for act in self._acts.get(number, ()):
                act(self.lazy)
            shown = Shown(probabilities(self.lazy).clone(), list(result.tracks), tokens)
            self._frames.append(shown)
        return self._frames[index - 1]


def answer(index: int, masks, source=Source.OPERATOR) -> Act:
    """Corrects frame `index`."""

    def act(lazy: LazyTracker) -> None:
        outcome = lazy.apply(correction(index, masks, source))
        assert outcome.applied, outcome.reason

    return act


def add(masks) -> Act:
    """Adds objects on the newest frame."""
    return lambda lazy: lazy.add_objects(masks)


NEVER = -1


def remove(*object_ids: int) -> Act:
    """Removes objects."""
    return lambda lazy: lazy.remove_objects(object_ids)


@cache
def answered_at_once(network: XMem, index: int) -> Instant:
    """Frame `index` is corrected at once, or `NEVER`."""
    return Instant(start(network), {index: [answer(index, FIRST)]})


@cache
def two_answered_at_once(
    network: XMem, config: LazyConfig = CONFIG, iou_predictor: IouPredictor | None = None
) -> Instant:
    """The two objects are corrected at once, each on a frame of its own."""
    answers = {5: [answer(5, FIRST)], 9: [answer(9, SECOND_ONE)]}
    return Instant(start(network, config, iou_predictor), answers)


def newest(lazy: LazyTracker) -> int:
    """The number of the frame that it has seen last."""
    assert lazy.tracker.frame is not None
    return lazy.tracker.frame.index


def probabilities(lazy: LazyTracker) -> torch.Tensor:
    assert lazy.tracker.frame is not None
    return lazy.tracker.frame.probabilities


def same(a: LazyTracker | Instant, b: LazyTracker) -> bool:
    expected = a[newest(b)].probabilities if isinstance(a, Instant) else probabilities(a)
    return torch.equal(expected, probabilities(b))
