# SPDX-License-Identifier: Apache-2.0
"""The tracker node over DDS: whatever is malformed is refused and changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import Point
from node_graph import (
    FIRST_STAMP,
    HEIGHT,
    STEP,
    WIDTH,
    header,
    labels_of,
    scene,
    scene_message,
    wait_for,
)
from sensor_msgs.msg import Image, RegionOfInterest
from std_srvs.srv import Trigger
from tracker_harness import NODE, NS, Tracker, click, with_fields

from lazyxmem_ros.msg import Correction, Prompt
from lazyxmem_ros.nodes.conversions import image_message, labels_message, mask_message
from lazyxmem_ros.nodes.diagnostics import LogLimiter


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"id": 42}, "object 42 is not tracked; there is 1"),
        ({"index": 77}, f"no recent frame of stamp {FIRST_STAMP + 77 * STEP}"),
        ({"index": None}, "names no frame"),
        ({"positive": [Point(x=-1.0, y=2.0)]}, "point (-1, 2) lies outside"),
        ({"positive": [Point(x=2.0, y=float("inf"))]}, "lies outside"),
        ({"positive": []}, "neither a click nor a box nor a mask"),
        ({"has_box": True, "box": RegionOfInterest(x_offset=90, width=20, height=4)}, "reaches"),
        ({"mask": mask_message(np.ones((3, 3), bool), header(0))}, "the mask is 3x3"),
        ({"mask": Image(encoding="rgb8", height=1, width=1)}, "label map"),
    ],
)
def test_malformed_corrections_change_nothing(
    tracker: Tracker, change: dict[str, Any], fault: str
) -> None:
    tracker.show_object(0)
    before = labels_of(tracker.send(1))
    fields = {"id": 1, "positive": [click(1)], **change}
    index = fields.pop("index", 1)
    object_id = fields.pop("id")
    message = Correction(id=object_id, prompt=Prompt(**fields))
    if index is not None:
        message.header = header(index)
    counted = sum(tracker.refusals().values())
    tracker.probe.publish(f"{NODE}/operator_correction", message)
    wait_for(lambda: tracker.out("corrected"), "the refusal")
    refused = tracker.out("corrected")[0]
    assert not refused.applied
    assert fault in refused.message
    assert sum(tracker.refusals().values()) == counted + 1
    np.testing.assert_array_equal(tracker.node._parts.received.tracked.labels, before)
    tracker.send(2)


def half_size(index: int) -> Image:
    return image_message(scene(index)[0][::2, ::2], "rgb8", header(index))


@pytest.mark.parametrize(
    ("message", "kind", "fault"),
    [
        (with_fields(scene_message(9), step=7), "image", "row step 7 is too small"),
        (with_fields(scene_message(9), encoding="rgb7"), "image", "encoding 'rgb7'"),
        (with_fields(scene_message(9), encoding="32FC1"), "image", "encoding '32FC1'"),
        (with_fields(scene_message(9), height=0), "image", "the image is empty"),
        (with_fields(scene_message(9), data=b"12"), "image", "the data is too short"),
        (
            with_fields(scene_message(9), header=header(-9)),
            "stamp runs backwards",
            "before the newest one",
        ),
        (scene_message(1), "same stamp", "a second image"),
        (scene_message(0), "stamp runs backwards", "before the newest one"),
        (Image(encoding="rgb8", height=2, width=2, step=6, data=[0] * 12), "no stamp", "no stamp"),
        (half_size(9), "FrameError", "reset"),
    ],
)
def test_malformed_images_change_nothing(
    tracker: Tracker, message: Image, kind: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker.show_object(0)
    tracker.send(1)
    said: list[str] = []
    monkeypatch.setattr(tracker.node._measures.refusals, "_limiter", LogLimiter(said.append))
    before = tracker.refusals()
    tracker.probe.publish(f"{NS}/image", message)
    wait_for(lambda: tracker.refusals() != before, "the refusal")
    [(refused, count)] = set(tracker.refusals().items()) - set(before.items())
    assert refused == f"{NS}/image: {kind}"
    assert count == before.get(refused, 0) + 1
    [warning] = said
    assert warning.startswith(f"{NS}/image: refused: ")
    assert fault in warning
    assert tracker.send(10).header == header(10)
    assert tracker.objects() == [1]


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (labels_message(np.ones((5, 5), np.uint16), header(1)), "size"),
        (labels_message(np.zeros((HEIGHT, WIDTH), np.uint16), header(1)), "no object"),
        (scene_message(1), "image"),
        (with_fields(labels_message(np.ones((5, 5), np.uint16), header(1)), data=b""), "image"),
        (labels_message(np.ones((HEIGHT, WIDTH), np.uint16), header(-5)), "forgotten stamp"),
    ],
)
def test_malformed_label_maps_change_nothing(tracker: Tracker, message: Image, fault: str) -> None:
    tracker.show_object(0)
    before_labels = labels_of(tracker.send(1))
    before = tracker.refusals()
    tracker.probe.publish(f"{NODE}/init_mask", message)
    key = f"{NODE}/init_mask: {fault}"
    wait_for(lambda: tracker.refusals().get(key, 0) > before.get(key, 0), "the refusal")
    assert tracker.objects() == [1]
    np.testing.assert_array_equal(tracker.node._parts.received.tracked.labels, before_labels)


def test_masks_whose_frame_never_comes_do_not_pile_up(tracker: Tracker) -> None:
    tracker.send(0)
    labels = scene(0)[1].astype(np.uint16)
    key = f"{NODE}/init_mask: frame never came"
    before = tracker.refusals().get(key, 0)
    for index in range(100, 110):
        tracker.probe.publish(f"{NODE}/init_mask", labels_message(labels, header(index)))
    wait_for(lambda: tracker.refusals().get(key, 0) == before + 2, "the refusal of the oldest")
    tracker.send(1)


def test_without_objects_a_recording_may_begin_again(tracker: Tracker) -> None:
    tracker.send(5)
    tracker.send(0)
    tracker.send(1)


def test_a_stray_image_does_not_undo_what_is_being_shown(tracker: Tracker) -> None:
    """The mask came before its frame, and then an image out of order."""
    tracker.send(5)
    labels = scene(7)[1].astype(np.uint16)
    tracker.probe.publish(f"{NODE}/init_mask", labels_message(labels, header(7)))
    wait_for(lambda: tracker.node._parts.objects.are_expected, "the mask")
    key = f"{NS}/image: stamp runs backwards"
    before = tracker.refusals().get(key, 0)
    tracker.probe.publish(f"{NS}/image", scene_message(4))
    wait_for(lambda: tracker.refusals().get(key, 0) == before + 1, "the refusal")
    tracker.send(7)
    assert tracker.objects() == [1]


def test_a_mask_of_another_clock_does_not_wait(tracker: Tracker) -> None:
    tracker.send(0)
    labels = scene(0)[1].astype(np.uint16)
    key = f"{NODE}/init_mask: stamp far ahead"
    before = tracker.refusals().get(key, 0)
    tracker.probe.publish(f"{NODE}/init_mask", labels_message(labels, header(36_000)))
    wait_for(lambda: tracker.refusals().get(key, 0) == before + 1, "the refusal")
    assert not tracker.node._parts.objects.are_expected


def test_a_reset_takes_any_stamp_and_size(tracker: Tracker) -> None:
    tracker.show_object(5)
    response = tracker.probe.call(Trigger, f"{NODE}/reset", Trigger.Request())
    assert response.success
    message = tracker.send(0, half_size(0))
    assert (message.height, message.width) == (HEIGHT // 2, WIDTH // 2)
    assert not labels_of(message).any()
