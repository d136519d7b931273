# SPDX-License-Identifier: Apache-2.0
"""The tracker node over DDS: frames, objects, services, parameters, diagnostics."""

from __future__ import annotations

import queue
import threading
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point
from node_graph import (
    FIRST_STAMP,
    HEIGHT,
    STEP,
    WAIT_S,
    WIDTH,
    header,
    labels_of,
    scene,
    scene_message,
    wait_for,
)
from sensor_msgs.msg import Image, RegionOfInterest
from tracker_harness import NODE, NS, Tracker, click, with_fields

from lazyxmem_ros.msg import NewObject, Prompt, Track
from lazyxmem_ros.nodes.conversions import labels_message, mask_message
from lazyxmem_ros.nodes.tracker import publishers
from lazyxmem_ros.srv import AddObjects, RemoveObjects


def test_before_an_object_is_shown_masks_are_empty(tracker: Tracker) -> None:
    for index in range(3):
        message = tracker.send(index)
        assert message.header == header(index)
        assert message.encoding == "mono8"
        assert not labels_of(message).any()
    assert tracker.objects() == []


def test_an_object_shown_on_a_frame_is_followed_from_there(tracker: Tracker) -> None:
    tracker.show_object(0)
    np.testing.assert_array_equal(labels_of(tracker.mask_of(0)), scene(0)[1])
    for index in range(1, 4):
        assert tracker.send(index).header == header(index)
    newest = tracker.out("tracks")[-1]
    assert newest.header == header(3)
    [track] = newest.tracks
    labels = labels_of(tracker.mask_of(3))
    assert track.id == 1
    assert track.area == (labels == 1).sum()
    assert track.state in (Track.TRACKED, Track.UNCERTAIN, Track.LOST)
    if track.area:
        rows, columns = np.nonzero(labels)
        assert (track.box.x_offset, track.box.y_offset) == (columns.min(), rows.min())
        assert (track.box.width, track.box.height) == (np.ptp(columns) + 1, np.ptp(rows) + 1)
    assert np.isfinite(track.uncertainty_rate)
    first = next(t for t in tracker.out("tracks") if t.tracks)
    assert np.isnan(first.tracks[0].uncertainty_rate)
    assert np.isnan(first.tracks[0].predicted_iou)


def test_a_mask_waits_for_its_frame(tracker: Tracker) -> None:
    tracker.send(0)
    labels = scene(2)[1].astype(np.uint16) * 300
    tracker.probe.publish(f"{NODE}/init_mask", labels_message(labels, header(2)))
    tracker.send(1)
    assert tracker.objects() == []
    message = tracker.send(2)
    assert message.encoding == "mono16"  # an id of more than eight bits
    np.testing.assert_array_equal(labels_of(message), labels)


def test_a_mask_may_name_a_frame_that_has_passed(tracker: Tracker) -> None:
    for index in range(4):
        tracker.send(index)
    labels = scene(1)[1].astype(np.uint16)
    tracker.probe.publish(f"{NODE}/init_mask", labels_message(labels, header(1)))
    wait_for(lambda: tracker.objects() == [1], "the object")
    np.testing.assert_array_equal(labels_of(tracker.mask_of(1)), labels)
    assert tracker.send(4).header == header(4)
    assert tracker.objects() == [1]


def test_a_second_object_may_be_shown_on_a_past_frame(tracker: Tracker) -> None:
    """It begins there, and is in the results once the frames since have been gone through."""
    tracker.show_object(0)
    for index in range(1, 4):
        tracker.send(index)
    labels = np.zeros((HEIGHT, WIDTH), np.uint16)
    labels[4:16, 4:90] = 9
    tracker.probe.publish(f"{NODE}/init_mask", labels_message(labels, header(1)))
    for index in range(4, 12):
        tracker.send(index)
        if tracker.objects() == [1, 9]:
            break
    assert tracker.objects() == [1, 9]


def test_a_camera_twice_as_fast_costs_one_frame_and_nothing_queues(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two images that come while one is tracked the newer is next, and the other is counted."""
    tracker.show_object(0)
    step = tracker.node._parts.session._lazy.step
    begun, may_end = queue.Queue[int](), threading.Semaphore(0)

    def slow_step(image: Any, stamp: int, **shown: Any) -> Any:
        begun.put((stamp - FIRST_STAMP) // STEP)
        assert may_end.acquire(timeout=WAIT_S)
        return step(image, stamp, **shown)

    monkeypatch.setattr(tracker.node._parts.session._lazy, "step", slow_step)
    counts = tracker.node._measures.counts
    before = {name: counts[name] for name in ("received", "tracked", "dropped")}
    tracker.probe.publish(f"{NS}/image", scene_message(1))
    assert begun.get(timeout=WAIT_S) == 1
    for index in (2, 4, 6, 8):
        for image in (index, index + 1):
            tracker.probe.publish(f"{NS}/image", scene_message(image))
            wait_for(lambda i=image: counts["received"] - before["received"] == i, "receipt")
        may_end.release()
        assert begun.get(timeout=WAIT_S) == index + 1
        wait_for(lambda i=index: tracker.mask_of(i - 1) is not None, "the mask")
    may_end.release()
    wait_for(lambda: tracker.mask_of(9) is not None, "the last mask")
    assert begun.empty()
    assert all(tracker.mask_of(index) is None for index in (2, 4, 6, 8))
    wait_for(tracker.node._parts.worker.is_idle, "the worker's rest")
    changes = {name: counts[name] - count for name, count in before.items()}
    assert changes == {"received": 9, "tracked": 5, "dropped": 4}


def test_overlay_and_uncertainty_are_made_while_somebody_looks(tracker: Tracker) -> None:
    outputs = tracker.node._parts.outputs
    tracker.show_object(0)
    made = (outputs.overlays_made, outputs.uncertainty_maps_made)
    tracker.send(1)
    assert (outputs.overlays_made, outputs.uncertainty_maps_made) == made
    for name in ("overlay", "uncertainty"):
        tracker.probe.listen(Image, f"{NODE}/{name}")
    wait_for(lambda: outputs._overlay.get_subscription_count() > 0, "the subscription")
    wait_for(lambda: outputs._uncertainty.get_subscription_count() > 0, "the subscription")
    tracker.send(2)
    wait_for(lambda: tracker.out("overlay") and tracker.out("uncertainty"), "the pictures")
    overlay, uncertainty = tracker.out("overlay")[-1], tracker.out("uncertainty")[-1]
    assert overlay.header == uncertainty.header == header(2)
    assert (overlay.encoding, uncertainty.encoding) == ("rgb8", "32FC1")
    entropy = np.frombuffer(uncertainty.data, "<f4").reshape(HEIGHT, WIDTH)
    assert (entropy >= 0).all()
    assert (entropy <= 1 + 1e-5).all()
    assert entropy.max() > 0
    drawn = np.frombuffer(overlay.data, np.uint8).reshape(HEIGHT, WIDTH, 3)
    labels = labels_of(tracker.mask_of(2))
    if labels.any():
        assert (drawn != scene(2)[0]).any()
    for name in ("overlay", "uncertainty"):
        tracker.probe.ignore(f"{NODE}/{name}")
    wait_for(lambda: outputs._overlay.get_subscription_count() == 0, "the end of it")
    wait_for(lambda: outputs._uncertainty.get_subscription_count() == 0, "the end of it")
    made = (outputs.overlays_made, outputs.uncertainty_maps_made)
    tracker.send(3)
    assert (outputs.overlays_made, outputs.uncertainty_maps_made) == made


def test_pictures_that_fail_are_logged_at_a_bearable_pace(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    failed = 0

    def fail(*_: Any, **__: Any) -> Any:
        nonlocal failed
        failed += 1
        raise RuntimeError("no paint")

    monkeypatch.setattr(publishers, "overlay", fail)
    tracker.probe.listen(Image, f"{tracker.name}/overlay")
    outputs = tracker.node._parts.outputs
    wait_for(lambda: outputs._overlay.get_subscription_count() > 0, "the subscription")
    tracker.show_object(0)
    before = failed
    for index in range(5):
        tracker.send(index + 1)
        wait_for(lambda n=index: failed > before + n, "the failure")
    tracker.probe.ignore(f"{tracker.name}/overlay")
    assert capfd.readouterr().err.count("a picture for people failed: no paint") == 1


# ---- services


def add(tracker: Tracker, *objects: NewObject, index: int | None = None) -> Any:
    request = AddObjects.Request(objects=list(objects))
    if index is not None:
        request.header = header(index)
    return tracker.probe.call(AddObjects, f"{NODE}/add_objects", request)


def test_objects_are_added_by_mask_click_and_box(tracker: Tracker) -> None:
    tracker.send(0)
    by_mask = np.zeros((HEIGHT, WIDTH), bool)
    by_mask[2:10, 2:12] = True
    masked = NewObject(id=7, label="cup", prompt=Prompt(mask=mask_message(by_mask, header(0))))
    response = add(tracker, masked)
    assert response.success, response.message
    assert list(response.ids) == [7]
    tracker.service.truth = scene(0)[1]
    clicked = NewObject(label="box", prompt=Prompt(positive=[click(0)]))
    response = add(tracker, clicked, index=0)
    assert response.success, response.message
    assert list(response.ids) == [1]  # the lowest free one
    np.testing.assert_array_equal(labels_of(tracker.mask_of(0)) == 1, scene(0)[1])
    [asked] = tracker.service.requests
    assert asked.image.header == header(0)
    assert not asked.prompts[0].has_box
    region = RegionOfInterest(x_offset=60, y_offset=50, width=20, height=10)
    tracker.service.truth = np.zeros((HEIGHT, WIDTH), bool)
    tracker.service.truth[50:60, 60:80] = True
    response = add(tracker, NewObject(prompt=Prompt(has_box=True, box=region)))
    assert response.success, response.message
    assert list(response.ids) == [2]
    assert tracker.service.requests[-1].prompts[0].box == region
    labels = {track.id: track.label for track in tracker.out("tracks")[-1].tracks}
    assert labels == {1: "box", 2: "", 7: "cup"}


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        ([], "names no object"),
        ([NewObject(id=3)], "neither a click nor a box nor a mask"),
        (
            [NewObject(id=1, prompt=Prompt(positive=[Point(x=5.0, y=5.0)]))],
            "object 1 is tracked already",
        ),
        (
            [NewObject(prompt=Prompt(positive=[Point(x=500.0, y=5.0)]))],
            "point (500, 5) lies outside",
        ),
        ([NewObject(prompt=Prompt(has_box=True))], "is empty or reaches beyond"),
        (
            [NewObject(prompt=Prompt(mask=mask_message(np.ones((4, 4), bool), header(0))))],
            "the mask is 4x4",
        ),
        (
            [
                NewObject(
                    prompt=Prompt(mask=mask_message(np.zeros((HEIGHT, WIDTH), bool), header(0)))
                )
            ],
            "is empty",
        ),
        (
            [NewObject(id=4, prompt=Prompt(positive=[Point(x=5.0, y=5.0)]))] * 2,
            "id 4 is given to more than one object",
        ),
    ],
)
def test_objects_that_make_no_sense_are_refused_whole(
    tracker: Tracker, objects: list[NewObject], reason: str
) -> None:
    tracker.show_object(0)
    good = NewObject(id=20, prompt=Prompt(mask=mask_message(scene(0)[1], header(0))))
    response = add(tracker, *([good, *objects] if objects else []))
    assert not response.success
    assert reason in response.message
    tracker.send(1)
    assert tracker.objects() == [1]


def test_objects_shown_by_clicks_are_asked_for_in_one_request(tracker: Tracker) -> None:
    tracker.send(0)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[2:10, 2:12] = True
    tracker.service.truth = scene(0)[1]
    clicked = Prompt(positive=[click(0)])
    drawn = NewObject(id=5, prompt=Prompt(mask=mask_message(mask, header(0))))
    objects = [NewObject(id=9, prompt=clicked), drawn, NewObject(id=3, prompt=clicked)]
    response = add(tracker, *objects)
    assert response.success, response.message
    assert list(response.ids) == [9, 5, 3]
    [asked] = tracker.service.requests
    assert len(asked.prompts) == 2
    labels = labels_of(tracker.mask_of(0))
    assert (labels[mask] == 5).all()
    assert set(np.unique(labels[scene(0)[1]])) <= {3, 9}
    tracker.reset()
    tracker.send(0)
    tracker.service.refused = {1}
    response = add(tracker, *objects)
    assert not response.success
    assert "truth: not this one" in response.message
    tracker.send(1)
    assert tracker.objects() == []


def test_adding_says_what_the_service_said(tracker: Tracker) -> None:
    tracker.send(0)
    tracker.service.mode = "fail"
    response = add(tracker, NewObject(prompt=Prompt(positive=[click(0)])))
    assert not response.success
    assert "truth: no idea" in response.message
    response = add(tracker, NewObject(prompt=Prompt(positive=[click(0)])), index=99)
    assert f"no recent frame of stamp {FIRST_STAMP + 99 * STEP}" in response.message


def test_objects_are_removed(tracker: Tracker) -> None:
    tracker.show_object(0, object_id=5)
    tracker.show_object(1, object_id=6)
    assert tracker.objects() == [5, 6]

    def remove(*ids: int) -> Any:
        request = RemoveObjects.Request(ids=list(ids))
        return tracker.probe.call(RemoveObjects, f"{NODE}/remove_objects", request)

    refused = remove(5, 77)
    assert not refused.success
    assert "77" in refused.message
    assert list(remove(5).removed) == [5]
    tracker.send(2)
    assert tracker.objects() == [6]
    assert list(remove().removed) == [6]
    assert not labels_of(tracker.send(3)).any()


# ---- parameters and diagnostics


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"pseudo_rate": -0.1}, "out of range"),
        ({"weights": "/other.pth"}, "only while the node is unconfigured"),
        ({"autostart": False}, "read-only"),
        ({"hold_rule": "some"}, "hold_rule must be one of any, all"),
        ({"max_open_requests": "many"}, "type"),
    ],
)
def test_parameters_are_refused_with_the_reason(
    tracker: Tracker, values: dict[str, Any], reason: str
) -> None:
    assert reason in tracker.set(**values)


def test_diagnostics_tell_what_happens(tracker: Tracker) -> None:
    tracker.probe.listen(DiagnosticArray, "/diagnostics")
    tracker.show_object(0)
    tracker.send(1)
    tracker.probe.publish(f"{NS}/image", with_fields(scene_message(2), step=1))

    def values(part: str) -> dict[str, str]:
        found = [
            status
            for array_ in tracker.probe.messages("/diagnostics")
            for status in array_.status
            if status.name == f"tracker_test/lazyxmem_tracker: {part}"
        ]
        return {pair.key: pair.value for pair in found[-1].values} if found else {}

    wait_for(lambda: values("frames").get("objects") == "1", "the report of the object")
    wait_for(lambda: f"{NS}/image: image" in values("refusals"), "the report of the refusal")
    frames = values("frames")
    assert int(frames["received"]) >= int(frames["tracked"]) > 0
    assert 0 < float(frames["latency p50 (ms)"]) <= float(frames["latency p99 (ms)"])
    assert float(values("memory")["peak resident memory (MiB)"]) > 10
    assert set(values("corrections")) >= {"pseudo applied", "operator applied", "service requests"}
