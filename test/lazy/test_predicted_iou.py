# SPDX-License-Identifier: Apache-2.0
"""The predicted IoU: its evidence, and what the policy makes of it."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_real_tracker import moving_squares, stamp_of, tracker_of

from lazyxmem_ros.lazy import (
    Correction,
    Evidence,
    IouPredictor,
    LazyConfig,
    LazyTracker,
    Source,
    read_snapshot,
    write_snapshot,
)
from lazyxmem_ros.lazy.policy import ObjectHistory, Observation, decide
from lazyxmem_ros.lazy.predicted_iou import (
    MAX_PORTRAITS,
    Looks,
    Shape,
    shapes_of,
    weigh,
)
from lazyxmem_ros.settings import ConfigError
from lazyxmem_ros.xmem import XMem

ZERO = Evidence(*(0.0 for _ in fields(Evidence)))
ONE = Evidence(*(1.0 for _ in fields(Evidence)))
MODEL = IouPredictor(
    mean=ZERO, scale=ONE, weight=replace(ZERO, sharpness=1.0, strangeness=-0.5), bias=0.25
)
QUIET = LazyConfig(operator_corrections=False, pseudo_corrections=False)


def test_the_prediction_is_the_logistic_function_of_the_evidence() -> None:
    assert MODEL.predict(ZERO) == pytest.approx(1 / (1 + math.exp(-0.25)))
    shifted = replace(MODEL, mean=replace(ZERO, sharpness=2.0), scale=replace(ONE, sharpness=4.0))
    expected = 1 / (1 + math.exp(-(0.25 + (6.0 - 2.0) / 4.0)))
    assert shifted.predict(replace(ZERO, sharpness=6.0)) == pytest.approx(expected)
    assert 0 <= MODEL.predict(replace(ZERO, sharpness=-1e9)) < 1e-6
    assert MODEL.predict(replace(ZERO, strangeness=5)) < MODEL.predict(ZERO)


def test_the_first_portrait_stays_and_the_others_are_the_newest() -> None:
    looks = Looks()
    for number in range(MAX_PORTRAITS + 3):
        looks.remember(torch.full((4,), float(number)))
    assert looks.portraits is not None
    assert looks.portraits[:, 0].tolist() == [0.0, *range(4, MAX_PORTRAITS + 3)]


def test_an_object_is_compared_with_the_portrait_nearest_to_it() -> None:
    looks = Looks()
    looks.remember(torch.tensor([1.0, 0.0]))
    looks.remember(torch.tensor([0.0, 3.0]))
    near = weigh(Shape(0.9, 1.0), 0.1, torch.tensor([0.0, 2.0]), looks, 0.0)
    assert near.likeness == pytest.approx(1.0)
    assert math.exp(near.strangeness) == pytest.approx(1.0, abs=2e-3)
    sharp = weigh(Shape(0.99, 0.5), 0.1, torch.ones(2), looks, 0.0)
    assert sharp.sharpness > near.sharpness
    assert sharp.wholeness == pytest.approx(0)
    assert near.wholeness > 4


def test_a_mask_in_pieces_is_told_by_its_largest_one(small_network: XMem) -> None:
    tracker = tracker_of(small_network)
    image, masks = next(iter(moving_squares(1)))
    pieces = np.zeros(image.shape[:2], np.bool_)
    pieces[:20, :20] = pieces[-10:, -10:] = True
    frame = tracker.segment(image, {1: pieces, 2: masks[1] & ~pieces})
    (broken, whole) = shapes_of(frame)
    assert broken.largest_piece == pytest.approx(0.8)
    assert whole.largest_piece == 1.0
    assert broken.soft_iou > 0.9


def test_growth_is_told_from_the_usual_area() -> None:
    looks = Looks()
    assert looks.grow(100) == 0
    assert looks.grow(200) == pytest.approx(math.log(2))
    for _ in range(200):
        looks.grow(200)
    assert abs(looks.grow(200)) < 1e-3
    assert looks.grow(50) < -1


def test_without_a_calibration_nothing_is_predicted(small_network: XMem) -> None:
    lazy = LazyTracker(tracker_of(small_network), QUIET)
    for index, (image, masks) in enumerate(moving_squares(3)):
        result = lazy.step(image, stamp_of(index), masks=masks if index == 0 else None)
        assert [t.predicted_iou for t in result.tracks] == [None, None]


def test_every_frame_has_a_prediction(small_network: XMem) -> None:
    """The first one, and one on which an object is added once it is closed, too."""
    lazy = LazyTracker(tracker_of(small_network), QUIET, iou_predictor=MODEL)
    frames = list(moving_squares(5))
    results = [lazy.step(frames[0][0], stamp_of(0))]
    assert results[0].tracks == []
    for index, (image, masks) in enumerate(frames[1:], 1):
        first, *others = masks.items()
        results.append(lazy.step(image, stamp_of(index), masks=dict([first]) if index == 1 else {}))
        if index == 3:
            lazy.close()
            results.append(lazy.add_objects(dict(others)))
    assert [len(result.tracks) for result in results] == [0, 1, 1, 1, 2, 2]
    for track in (track for result in results for track in result.tracks):
        assert track.predicted_iou is not None
        assert 0 <= track.predicted_iou <= 1
        assert (track.predicted_iou == 0) == (track.area == 0)


def test_what_is_probably_something_else_is_not_shown(small_network: XMem) -> None:
    lazy = LazyTracker(tracker_of(small_network), QUIET, iou_predictor=MODEL)
    for index, (image, masks) in enumerate(moving_squares(4)):
        result = lazy.step(image, stamp_of(index), masks=masks if index == 0 else None)
        assert lazy.shown(result.labels) is result.labels, "nothing of it is so poor"
    expected = {t.object_id: t.predicted_iou or 0.0 for t in result.tracks if t.area}
    (worse, low), (better, high) = sorted(expected.items(), key=lambda item: item[1])
    assert low < high
    lazy.config = replace(lazy.config, show_iou=(low + high) / 2)
    shown = lazy.shown(result.labels)
    assert not (shown == worse).any()
    np.testing.assert_array_equal(shown == better, result.labels == better)
    outcome = lazy.apply(Correction(result.stamp, {worse: masks[worse]}))
    assert outcome.labels is not None
    assert lazy.shown(outcome.labels) is outcome.labels, "a person said that it is there"
    lazy.config = replace(lazy.config, show_iou=1.0)
    added = lazy.add_objects({better: masks[better]})
    assert (lazy.shown(added.labels) == better).any(), "so does a mask that was given"


def test_a_persons_correction_gives_a_new_portrait(small_network: XMem) -> None:
    lazy = LazyTracker(tracker_of(small_network), QUIET, iou_predictor=MODEL)
    for index, (image, masks) in enumerate(moving_squares(6)):
        lazy.step(image, stamp_of(index), masks=masks if index == 0 else None)
        if index == 2:
            assert lazy.apply(Correction(stamp_of(2), {1: masks[1]})).applied
    corrected, other = (lazy.snapshot().objects[i].looks.portraits for i in (1, 5))
    assert corrected is not None
    assert other is not None
    assert len(corrected) == 2
    assert len(other) == 1


@pytest.mark.parametrize("late", [0, 2])
@pytest.mark.parametrize(
    ("shows", "learns", "due"), [(True, True, True), (False, True, False), (True, False, False)]
)
def test_a_portrait_is_due_where_memory_learns_what_a_person_shows(
    shows: bool, learns: bool, due: bool, late: int, small_network: XMem
) -> None:
    """After "it is not there", what is found next would else be taken for the object."""
    config = replace(QUIET, update_from_operator=learns)
    lazy = LazyTracker(tracker_of(small_network), config, iou_predictor=MODEL)
    answer = next(masks[1] for _, masks in moving_squares(1)) & shows
    for index, (image, masks) in enumerate(moving_squares(12)):
        lazy.step(image, stamp_of(index), masks=masks if index == 0 else None)
        if index == 2 + late:
            assert lazy.apply(Correction(stamp_of(2), {1: answer})).applied
    assert lazy.catch_up(60.0) == 0
    told = lazy.snapshot().objects[1].looks.told
    assert told == (stamp_of(2) if due else None)


def test_a_snapshot_keeps_the_portraits(small_network: XMem, tmp_path: Path) -> None:
    lazy = LazyTracker(tracker_of(small_network), QUIET, iou_predictor=MODEL)
    frames = list(moving_squares(6))
    for index, (image, masks) in enumerate(frames[:4]):
        lazy.step(image, stamp_of(index), masks=masks if index == 0 else None)
    lazy.close()
    path = tmp_path / "snapshot"
    write_snapshot(lazy.snapshot(), path)
    other = LazyTracker(tracker_of(small_network), QUIET, iou_predictor=MODEL)
    other.resume(read_snapshot(path, other.tracker))
    for index in (4, 5):
        image, _ = frames[index]
        mine = lazy.step(image, stamp_of(index)).tracks
        theirs = other.step(image, stamp_of(index)).tracks
        assert [t.predicted_iou for t in mine] == pytest.approx([t.predicted_iou for t in theirs])


def observation(iou: float | None, index: int = 5) -> Observation:
    return Observation(index=index, stamp=index, area=500, entropy=0.1, predicted_iou=iou)


@pytest.mark.parametrize(
    ("iou", "asked"),
    [(0.3, Source.OPERATOR), (0.5, Source.PSEUDO), (0.7, None), (None, None)],
)
def test_a_low_prediction_asks(iou: float | None, asked: Source | None) -> None:
    config = LazyConfig(operator_iou=0.4, pseudo_iou=0.6)
    history = ObjectHistory(entropy=0.1, seen_stamp=0)
    decision, _ = decide(config, history, observation(iou), waiting=0)
    assert decision.request is asked
    assert ("predicted IoU" in decision.reason) == (asked is not None)


@pytest.mark.parametrize("name", ["operator_iou", "pseudo_iou"])
def test_a_threshold_beyond_one_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        LazyConfig(**{name: 1.5})


def test_evidence_takes_nothing_from_memory(small_network: XMem) -> None:
    """The same masks come out with and without a calibration."""
    with_it = LazyTracker(tracker_of(small_network), QUIET, iou_predictor=MODEL)
    without = LazyTracker(tracker_of(small_network), QUIET)
    for index, (image, masks) in enumerate(moving_squares(6)):
        given = masks if index == 0 else None
        mine = with_it.step(image, stamp_of(index), masks=given)
        theirs = without.step(image, stamp_of(index), masks=given)
        np.testing.assert_array_equal(mine.labels, theirs.labels)
