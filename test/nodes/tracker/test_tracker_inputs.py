# SPDX-License-Identifier: Apache-2.0
"""The tracker node over DDS, calibrated: what a person may answer, and a mask without a stamp."""

from __future__ import annotations

import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from node_graph import HEIGHT, WIDTH, header, labels_of, scene, wait_for
from sensor_msgs.msg import RegionOfInterest
from std_msgs.msg import Header
from tracker_harness import Tracker, ask_the_operator, click

from lazyxmem_ros.lazy import Calibration, Evidence, IouPredictor, calibration_path
from lazyxmem_ros.msg import Correction, Prompt, Track
from lazyxmem_ros.nodes.conversions import labels_message, mask_message

ZERO = Evidence(*(0.0 for _ in fields(Evidence)))
ONE = Evidence(*(1.0 for _ in fields(Evidence)))
MODEL = IouPredictor(mean=ZERO, scale=ONE, weight=replace(ZERO, sharpness=0.1), bias=0.5)
NOTHING = np.zeros((HEIGHT, WIDTH), bool)


@pytest.fixture(scope="module")
def weights(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a calibration beside them."""
    mine = tmp_path_factory.mktemp("calibrated") / weights.name
    shutil.copy(weights, mine)
    Calibration(MODEL, thresholds={}, about={}).save(calibration_path(mine))
    return mine


def track_of(tracker: Tracker, index: int) -> Track:
    """The only object on the tracks of the scene's frame of that number."""
    [found] = [t for t in tracker.out("tracks") if t.header == header(index)]
    [track] = found.tracks
    return track


def answer(tracker: Tracker, truth: np.ndarray, **values: Any) -> Correction:
    """What becomes of a person's answer to a request about frame 1; truth: the service's mask."""
    request = ask_the_operator(tracker)
    tracker.service.truth = truth
    tracker.set(operator_corrections=False)
    given = Correction(header=request.header, id=request.id, prompt=Prompt(**values))
    tracker.probe.publish(f"{tracker.name}/operator_correction", given)
    wait_for(lambda: tracker.out("corrected"), "the correction")
    [corrected] = tracker.out("corrected")
    assert corrected.applied, corrected.message
    assert (corrected.source, corrected.header) == ("operator", header(1))
    return corrected


def test_the_predicted_iou_is_published_and_told_to_the_service(tracker: Tracker) -> None:
    tracker.show_object(0)
    tracker.set(pseudo_corrections=True, pseudo_entropy=0.0)
    tracker.send(1)
    wait_for(lambda: tracker.out("corrected"), "the answer")
    expected = track_of(tracker, 1).predicted_iou
    assert 0 < expected < 1
    [asked] = tracker.service.requests
    assert asked.prior_ious[0] == pytest.approx(expected)


def test_the_predicted_iou_of_what_a_person_was_asked_about_goes_with_a_click(
    tracker: Tracker,
) -> None:
    answer(tracker, scene(1)[1], positive=[click(1)])
    [asked] = tracker.service.requests
    assert 0 < asked.prior_ious[0] < 1
    assert asked.prior_ious[0] == pytest.approx(track_of(tracker, 1).predicted_iou)


def test_a_persons_box_goes_to_the_service_alone(tracker: Tracker) -> None:
    box = RegionOfInterest(x_offset=8, y_offset=18, width=30, height=28)
    corrected = answer(tracker, scene(1)[1], has_box=True, box=box)
    [asked] = tracker.service.prompts
    assert asked.has_box
    assert asked.box == box
    assert not len(asked.positive) + len(asked.negative) + len(asked.mask.data)
    np.testing.assert_array_equal(labels_of(corrected.prompt.mask) > 0, scene(1)[1])


def test_a_click_beside_it_alone_goes_to_the_service_with_the_mask(tracker: Tracker) -> None:
    answer(tracker, NOTHING, negative=[click(1)])
    [asked] = tracker.service.prompts
    assert not asked.positive
    assert list(asked.negative) == [click(1)]
    assert asked.mask.height == HEIGHT
    assert not (tracker.node._parts.received.tracked.labels == 1).any()


def test_an_empty_mask_says_that_the_object_is_not_there(tracker: Tracker) -> None:
    corrected = answer(tracker, scene(1)[1], mask=mask_message(NOTHING, header(1)))
    assert not tracker.service.requests
    assert not labels_of(corrected.prompt.mask).any()
    assert not (tracker.node._parts.received.tracked.labels == 1).any()


def test_a_mask_without_a_stamp_is_the_newest_frames(tracker: Tracker) -> None:
    for index in range(3):
        tracker.send(index)
    labels = scene(2)[1].astype(np.uint16)
    message = labels_message(labels, Header(frame_id="camera"))
    tracker.probe.publish(f"{tracker.name}/init_mask", message)
    wait_for(lambda: tracker.objects() == [1], "the object")
    np.testing.assert_array_equal(labels_of(tracker.mask_of(2)), labels)
