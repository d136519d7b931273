# SPDX-License-Identifier: Apache-2.0
"""The tracker node: frames, objects, corrections and everything malformed, over real DDS.

The node runs in this process, spun in a thread, on an untrained network: what it finds is of no
account here, what it does with it is.
"""

from __future__ import annotations

import array
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point
from node_graph import (
    FIRST_STAMP,
    HEIGHT,
    STEP,
    WIDTH,
    Probe,
    Spinner,
    header,
    labels_of,
    parameters,
    scene,
    scene_message,
    stamps,
    wait_for,
)
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future
from sensor_msgs.msg import CompressedImage, Image, RegionOfInterest
from std_srvs.srv import Trigger

from lazyxmem_ros.msg import Correction, CorrectionRequest, NewObject, Track, TrackArray
from lazyxmem_ros.nodes.conversions import image_message, labels_message, mask_message
from lazyxmem_ros.nodes.tracker import TrackerNode, make_node
from lazyxmem_ros.srv import AddObjects, CorrectMask, RemoveObjects

NS = "/tracker_test"
NODE = f"{NS}/lazyxmem_tracker"
QUIET = {
    "user_corrections": False,
    "pseudo_corrections": False,
    "correction_wait": 0.0,
    "correction_timeout": 5.0,
    "request_timeout": 10.0,
    "pseudo_entropy": float("inf"),
    "user_entropy": float("inf"),
    "cooldown_frames": 30,
}
OUTPUTS = {
    "mask": Image,
    "tracks": TrackArray,
    "corrected": Correction,
    "correction_request": CorrectionRequest,
}


class Service:
    """A `correct_mask` server of the tests' own: answers with the truth, fails, or keeps silent."""

    def __init__(self, probe: Probe) -> None:
        self.requests: list[CorrectMask.Request] = []
        self.mode = "truth"
        self.truth = np.zeros((HEIGHT, WIDTH), bool)
        self._probe = probe
        self._service: Any = None
        self.start()

    def start(self) -> None:
        node = self._probe.node
        self._service = node.create_service(
            CorrectMask,
            f"{NS}/correct_mask",
            self._answer,
            callback_group=ReentrantCallbackGroup(),
        )

    def stop(self) -> None:
        if self._service is not None:
            self._probe.node.destroy_service(self._service)
            self._service = None

    async def _answer(
        self, request: CorrectMask.Request, response: CorrectMask.Response
    ) -> CorrectMask.Response:
        self.requests.append(request)
        response.corrector = "truth"
        if self.mode == "silent":
            await Future(executor=self._probe.node.executor)
        if self.mode == "fail":
            response.message = "no idea"
            return response
        response.success = True
        response.score = 1.0
        mask = self.truth if self.mode == "truth" else self.truth[:-1]
        response.mask = mask_message(mask, request.image.header)
        return response


class Tracker:
    """The node under test and how the tests talk to it."""

    def __init__(self, node: TrackerNode, probe: Probe, service: Service) -> None:
        self.node = node
        self.probe = probe
        self.service = service
        for name, kind in OUTPUTS.items():
            probe.listen(kind, f"{NODE}/{name}")

    def set(self, **values: Any) -> str:
        result = self.node.set_parameters_atomically(parameters(**values))
        return "" if result.successful else str(result.reason)

    def reset(self) -> None:
        response = self.probe.call(Trigger, f"{NODE}/reset", Trigger.Request())
        assert response.success
        assert self.set(**QUIET) == ""
        self.service.mode = "truth"
        self.service.requests.clear()
        self.probe.forget()

    def out(self, name: str) -> list[Any]:
        return self.probe.messages(f"{NODE}/{name}")

    def mask_of(self, index: int) -> Any | None:
        """The newest mask published for the scene's frame of that number."""
        wanted = FIRST_STAMP + index * STEP
        found = [
            m
            for m, s in zip(self.out("mask"), stamps(self.out("mask")), strict=True)
            if s == wanted
        ]
        return found[-1] if found else None

    def send(self, index: int, message: Any | None = None) -> Any:
        """Publish a frame and wait for its mask and tracks."""
        self.probe.publish(f"{NS}/image", scene_message(index) if message is None else message)
        stamp = FIRST_STAMP + index * STEP
        wait_for(
            lambda: self.mask_of(index) is not None and stamp in stamps(self.out("tracks")),
            f"the mask and tracks of frame {index}",
        )
        return self.mask_of(index)

    def show_object(self, index: int = 0, object_id: int = 1) -> None:
        """Frame `index`, then its label map."""
        self.send(index)
        labels = scene(index)[1].astype(np.uint16) * object_id
        self.probe.publish(f"{NODE}/init_mask", labels_message(labels, header(index)))
        wait_for(lambda: object_id in self.objects(), f"object {object_id}")

    def objects(self) -> list[int]:
        """The objects on the newest tracks."""
        tracks = self.out("tracks")
        return [track.id for track in tracks[-1].tracks] if tracks else []

    def refusals(self) -> dict[str, int]:
        return self.node._refusals.snapshot()

    def count(self, name: str) -> int:
        return self.node._measures.counts[name]


@pytest.fixture(scope="module")
def shared_tracker(ros: None, weights: Any, probe: Probe) -> Iterator[Tracker]:
    service = Service(probe)
    node = make_node(
        cli_args=["--ros-args", "-r", f"__ns:={NS}"],
        parameter_overrides=parameters(
            weights=str(weights), device="cpu", diagnostics_period=0.1, **QUIET
        ),
    )
    spinner = Spinner(node)
    yield Tracker(node, probe, service)
    spinner.close()
    service.stop()


@pytest.fixture
def tracker(shared_tracker: Tracker) -> Tracker:
    shared_tracker.reset()
    return shared_tracker


# ---- frames and objects


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
    """It is carried forward to the newest frame; the first keeps its memory."""
    tracker.show_object(0)
    for index in range(1, 4):
        tracker.send(index)
    labels = np.zeros((HEIGHT, WIDTH), np.uint16)
    labels[4:16, 4:90] = 9
    before = tracker.refusals().get(f"{NODE}/init_mask: gone", 0)
    tracker.probe.publish(f"{NODE}/init_mask", labels_message(labels, header(1)))

    def settled() -> bool:
        gone = tracker.refusals().get(f"{NODE}/init_mask: gone", 0) > before
        return gone or tracker.objects() == [1, 9]

    # The untrained network may lose it on the way, which is refused by name; never is it placed
    # where it was two frames ago.
    wait_for(settled, "the second object or its refusal")
    tracker.send(4)
    assert 1 in tracker.objects()


def test_compressed_images_are_tracked_too(tracker: Tracker) -> None:
    import cv2

    image, _ = scene(0)
    _, data = cv2.imencode(".png", image[..., ::-1])
    message = CompressedImage(header=header(0), format="rgb8; png compressed bgr8")
    message.data = array.array("B", data.tobytes())
    tracker.probe.publish(f"{NS}/image/compressed", message)
    wait_for(lambda: tracker.mask_of(0) is not None, "the mask")
    assert labels_of(tracker.mask_of(0)).shape == (HEIGHT, WIDTH)


def test_only_the_newest_frame_is_tracked_and_drops_are_counted(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    tracker.show_object(0)
    parts = tracker.node._parts
    entered, gate = threading.Event(), threading.Event()
    parts.worker.submit(lambda: (entered.set(), gate.wait(10)))
    entered.wait(10)
    received, dropped = tracker.count("received"), tracker.count("dropped")
    for index in range(1, 6):
        tracker.probe.publish(f"{NS}/image", scene_message(index))
        wait_for(lambda index=index: tracker.count("received") == received + index, "receipt")
    gate.set()
    wait_for(lambda: tracker.mask_of(5) is not None, "the newest frame's mask")
    assert tracker.count("dropped") - dropped == 4
    assert all(tracker.mask_of(index) is None for index in range(1, 5))


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


# ---- services


def add(tracker: Tracker, *objects: NewObject, index: int | None = None) -> Any:
    request = AddObjects.Request(objects=list(objects))
    if index is not None:
        request.header = header(index)
    return tracker.probe.call(AddObjects, f"{NODE}/add_objects", request)


def click(index: int) -> Point:
    rows, columns = np.nonzero(scene(index)[1])
    return Point(x=float(columns.mean()), y=float(rows.mean()))


def test_objects_are_added_by_mask_click_and_box(tracker: Tracker) -> None:
    tracker.send(0)
    by_mask = np.zeros((HEIGHT, WIDTH), bool)
    by_mask[2:10, 2:12] = True
    masked = NewObject(id=7, label="cup", mask=mask_message(by_mask, header(0)))
    response = add(tracker, masked)
    assert response.success, response.message
    assert list(response.ids) == [7]
    tracker.service.truth = scene(0)[1]
    clicked = NewObject(label="box", positive=[click(0)])
    response = add(tracker, clicked, index=0)
    assert response.success, response.message
    assert list(response.ids) == [1]  # the lowest free one
    np.testing.assert_array_equal(labels_of(tracker.mask_of(0)) == 1, scene(0)[1])
    [asked] = tracker.service.requests
    assert asked.image.header == header(0)
    assert not asked.has_box
    region = RegionOfInterest(x_offset=60, y_offset=50, width=20, height=10)
    tracker.service.truth = np.zeros((HEIGHT, WIDTH), bool)
    tracker.service.truth[50:60, 60:80] = True
    response = add(tracker, NewObject(has_box=True, box=region))
    assert response.success, response.message
    assert list(response.ids) == [2]
    assert tracker.service.requests[-1].box == region
    labels = {track.id: track.label for track in tracker.out("tracks")[-1].tracks}
    assert labels == {1: "box", 2: "", 7: "cup"}


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        ([], "names no object"),
        ([NewObject(id=3)], "neither a click nor a box nor a mask"),
        ([NewObject(id=1, positive=[Point(x=5.0, y=5.0)])], "object 1 is tracked already"),
        ([NewObject(positive=[Point(x=500.0, y=5.0)])], "point (500, 5) lies outside"),
        ([NewObject(has_box=True)], "is empty or reaches beyond"),
        ([NewObject(mask=mask_message(np.ones((4, 4), bool), header(0)))], "the mask is 4x4"),
        ([NewObject(mask=mask_message(np.zeros((HEIGHT, WIDTH), bool), header(0)))], "is empty"),
        (
            [NewObject(id=4, positive=[Point(x=5.0, y=5.0)])] * 2,
            "id 4 is given to more than one object",
        ),
    ],
)
def test_objects_that_make_no_sense_are_refused_whole(
    tracker: Tracker, objects: list[NewObject], reason: str
) -> None:
    tracker.show_object(0)
    good = NewObject(id=20, mask=mask_message(scene(0)[1], header(0)))
    response = add(tracker, *([good, *objects] if objects else []))
    assert not response.success
    assert reason in response.message
    tracker.send(1)
    assert tracker.objects() == [1]


def test_adding_says_what_the_service_said(tracker: Tracker) -> None:
    tracker.send(0)
    tracker.service.mode = "fail"
    response = add(tracker, NewObject(positive=[click(0)]))
    assert not response.success
    assert "truth: no idea" in response.message
    response = add(tracker, NewObject(positive=[click(0)]), index=99)
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


# ---- corrections


def test_an_uncertainty_spike_calls_the_service(tracker: Tracker) -> None:
    tracker.show_object(0)
    assert tracker.set(pseudo_corrections=True, pseudo_entropy=0.0) == ""
    tracker.service.truth = scene(1)[1]
    tracker.send(1)
    wait_for(lambda: tracker.out("corrected"), "the correction")
    [asked] = tracker.service.requests
    assert asked.image.header == header(1)
    assert asked.positive
    corrected = tracker.out("corrected")[0]
    assert corrected.header == header(1)
    assert (corrected.id, corrected.source, corrected.applied) == (1, "pseudo", True)
    np.testing.assert_array_equal(labels_of(corrected.mask) > 0, scene(1)[1])


def test_a_frame_may_wait_for_its_correction(tracker: Tracker) -> None:
    """The published mask is then the corrected one."""
    tracker.show_object(0)
    values = {"pseudo_corrections": True, "pseudo_entropy": 0.0, "correction_wait": 5.0}
    assert tracker.set(**values) == ""
    tracker.service.truth = scene(1)[1]
    np.testing.assert_array_equal(labels_of(tracker.send(1)), scene(1)[1])


@pytest.mark.parametrize(
    ("mode", "fault"),
    [
        ("silent", "did not answer within 0.2 s"),
        ("fail", "truth: no idea"),
        ("small", f"sent a mask of {WIDTH}x{HEIGHT - 1}"),
        ("dead", "is not there"),
    ],
)
def test_a_service_without_an_answer_costs_its_correction_alone(
    tracker: Tracker, mode: str, fault: str
) -> None:
    probe = tracker.probe
    probe.listen(DiagnosticArray, "/diagnostics")
    tracker.show_object(0)
    client = tracker.node._parts.client
    if mode == "dead":
        tracker.service.stop()
        wait_for(lambda: not client.is_available(), "the service's end")
    tracker.service.mode = mode
    tracker.set(pseudo_corrections=True, pseudo_entropy=0.0, correction_timeout=0.2)
    tracker.send(1)
    wait_for(lambda: tracker.out("corrected"), "the failure's report")
    failed = tracker.out("corrected")[0]
    assert not failed.applied
    assert fault in failed.message

    def report() -> str:
        return " ".join(
            status.message
            for array_ in probe.messages("/diagnostics")
            for status in array_.status
            if status.name == "lazyxmem_tracker: corrections"
        )

    wait_for(lambda: fault in report(), "the diagnostics")
    tracker.send(2)  # tracking goes on, and asks again
    wait_for(lambda: len(tracker.out("corrected")) == 2, "the second failure")
    if mode == "dead":
        tracker.service.start()
        wait_for(client.is_available, "the service's return")
    tracker.service.mode = "truth"
    tracker.service.truth = scene(3)[1]
    tracker.send(3)
    wait_for(lambda: tracker.out("corrected")[-1].applied, "a correction by the service's return")


def ask_a_person(tracker: Tracker) -> CorrectionRequest:
    """A request to a person about frame 1."""
    tracker.show_object(0)
    assert tracker.set(user_corrections=True, user_entropy=0.0) == ""
    tracker.send(1)
    wait_for(lambda: tracker.out("correction_request"), "the request")
    return tracker.out("correction_request")[0]


def test_a_person_is_asked_with_all_that_is_needed(tracker: Tracker) -> None:
    request = ask_a_person(tracker)
    assert request.header == header(1)
    assert request.id == 1
    assert "uncertainty" in request.reason
    assert request.uncertainty > 0
    np.testing.assert_array_equal(
        np.frombuffer(request.image.data, np.uint8).reshape(HEIGHT, WIDTH, 3), scene(1)[0]
    )
    np.testing.assert_array_equal(labels_of(request.mask) > 0, labels_of(tracker.mask_of(1)) == 1)
    assert request.deadline.sec > 0


def test_a_persons_click_goes_through_the_service_and_changes_the_mask(tracker: Tracker) -> None:
    request = ask_a_person(tracker)
    tracker.set(user_corrections=False)
    tracker.service.truth = scene(1)[1]
    answer = Correction(header=request.header, id=1, positive=[click(1)])
    tracker.probe.publish(f"{NODE}/operator_correction", answer)
    wait_for(lambda: tracker.out("corrected"), "the correction")
    corrected = tracker.out("corrected")[0]
    assert corrected.applied, corrected.message
    assert corrected.source == "operator"
    assert corrected.header == header(1)
    [asked] = tracker.service.requests
    assert list(asked.positive) == [click(1)]
    assert asked.prior.height == HEIGHT  # what was tracked is the prior
    np.testing.assert_array_equal(labels_of(corrected.mask) > 0, scene(1)[1])
    # The next frame is tracked from a memory that has taken the correction in.
    without = labels_of(tracker.mask_of(1))
    newest = tracker.node._parts.session._newest
    np.testing.assert_array_equal(newest.labels == 1, scene(1)[1])
    assert (newest.labels != without).any()


def test_a_persons_mask_is_applied_as_it_is(tracker: Tracker) -> None:
    request = ask_a_person(tracker)
    mask = scene(1)[1]
    answer = Correction(header=request.header, id=1, mask=mask_message(mask, request.header))
    tracker.probe.publish(f"{NODE}/operator_correction", answer)
    wait_for(lambda: tracker.out("corrected"), "the correction")
    assert tracker.out("corrected")[0].applied
    assert not tracker.service.requests
    np.testing.assert_array_equal(tracker.node._parts.session._newest.labels == 1, mask)


def test_an_answer_after_its_deadline_is_refused(tracker: Tracker) -> None:
    assert tracker.set(request_timeout=0.05) == ""
    request = ask_a_person(tracker)
    tracker.set(user_corrections=False)
    now = tracker.node.get_clock().now
    due = request.deadline.sec * 10**9 + request.deadline.nanosec
    wait_for(lambda: now().nanoseconds > due, "the deadline")
    answer = Correction(header=request.header, id=1, positive=[click(1)])
    tracker.probe.publish(f"{NODE}/operator_correction", answer)
    wait_for(lambda: tracker.out("corrected"), "the refusal")
    assert not tracker.out("corrected")[0].applied
    assert "too late" in tracker.out("corrected")[0].message
    assert not tracker.service.requests


# ---- what is malformed


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
    message = Correction(**fields)
    if index is not None:
        message.header = header(index)
    counted = sum(tracker.refusals().values())
    tracker.probe.publish(f"{NODE}/operator_correction", message)
    wait_for(lambda: tracker.out("corrected"), "the refusal")
    refused = tracker.out("corrected")[0]
    assert not refused.applied
    assert fault in refused.message
    assert sum(tracker.refusals().values()) == counted + 1
    np.testing.assert_array_equal(tracker.node._parts.session._newest.labels, before)
    tracker.send(2)


def with_fields(message: Any, **fields: Any) -> Any:
    for name, value in fields.items():
        setattr(message, name, value)
    return message


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
    monkeypatch.setattr(tracker.node._refusals, "_warn", said.append)
    monkeypatch.setattr(tracker.node._refusals, "_said", {})
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


def test_compressed_nonsense_changes_nothing(tracker: Tracker) -> None:
    tracker.show_object(0)
    before = sum(tracker.refusals().values())
    for data in (b"", b"nonsense"):
        message = CompressedImage(header=header(5 + len(data)), format="jpeg", data=data)
        tracker.probe.publish(f"{NS}/image/compressed", message)
    wait_for(lambda: sum(tracker.refusals().values()) == before + 2, "both refusals")
    tracker.send(20)
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
    np.testing.assert_array_equal(tracker.node._parts.session._newest.labels, before_labels)


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


def test_a_reset_takes_any_stamp_and_size(tracker: Tracker) -> None:
    tracker.show_object(5)
    response = tracker.probe.call(Trigger, f"{NODE}/reset", Trigger.Request())
    assert response.success
    message = tracker.send(0, half_size(0))
    assert (message.height, message.width) == (HEIGHT // 2, WIDTH // 2)
    assert not labels_of(message).any()


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
            if status.name == f"lazyxmem_tracker: {part}"
        ]
        return {pair.key: pair.value for pair in found[-1].values} if found else {}

    wait_for(lambda: values("frames").get("objects") == "1", "the report of the object")
    wait_for(lambda: f"{NS}/image: image" in values("refusals"), "the report of the refusal")
    frames = values("frames")
    assert int(frames["received"]) >= int(frames["tracked"]) > 0
    assert 0 < float(frames["latency p50 (ms)"]) <= float(frames["latency p99 (ms)"])
    assert float(values("memory")["peak resident memory (MiB)"]) > 10
    assert set(values("corrections")) >= {"pseudo applied", "operator applied", "service requests"}
