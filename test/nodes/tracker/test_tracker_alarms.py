# SPDX-License-Identifier: Apache-2.0
"""The tracker node over DDS: what it raises an alarm about, on /diagnostics and in its log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from node_graph import HEIGHT, WIDTH, Probe, header, offered_by_another, scene_message, wait_for
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from tracker_harness import Tracker

from lazyxmem_ros.nodes.conversions import labels_message
from lazyxmem_ros.nodes.diagnostics import ERROR, OK, WARN
from lazyxmem_ros.nodes.running import NodeStartError
from lazyxmem_ros.nodes.tracker import images

OwnTracker = Callable[..., Tracker]
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


class Report:
    """What a part of a tracker reports, one status after the other: none is missed."""

    def __init__(self, tracker: Tracker, part: str) -> None:
        self._tracker = tracker
        self._name = f"{tracker.name.lstrip('/')}: {part}"
        self._read = 0
        tracker.probe.listen(DiagnosticArray, "/diagnostics")

    def _unread(self) -> list[DiagnosticStatus]:
        found = [
            status
            for message in self._tracker.probe.messages("/diagnostics")
            for status in message.status
            if status.name == self._name
        ]
        return found[self._read :]

    def next(self) -> DiagnosticStatus:
        """The status that comes next, whatever it says."""
        wait_for(self._unread, "a status")
        status = self._unread()[0]
        self._read += 1
        return status

    def wait(self, level: bytes, text: str) -> DiagnosticStatus:
        """The first such status after the one that was waited for before."""

        def came() -> list[int]:
            return [
                number
                for number, status in enumerate(self._unread())
                if status.level == level and text in status.message
            ]

        wait_for(came, f"{level!r} with {text!r}, but {self._unread()[-1:]}")
        first = came()[0]
        status = self._unread()[first]
        self._read += first + 1
        return status


class Log:
    """What the node has logged since the test began."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self._text = ""

    def says_silence(self) -> int:
        """How often it says that no image comes."""
        self._text += self._capfd.readouterr().err
        return self._text.count("no image for")


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "NO_IMAGE_AFTER_S", 0.5)
    monkeypatch.setattr(images, "LOOK_PERIOD_S", 0.1)
    monkeypatch.setattr(images, "SEVERAL_AFTER_S", 0.5)


@pytest.fixture
def publishers(probe: Probe) -> Iterator[list[Any]]:
    made: list[Any] = []
    yield made
    for publisher in made:
        probe.node.destroy_publisher(publisher)


@pytest.mark.parametrize(
    ("kind", "topic", "quality", "values", "reason"),
    [
        (None, "", 10, {}, "nobody publishes"),
        (Image, "camera/image_raw", 10, {}, "camera/image_raw: remap to the right one"),
        (CompressedImage, "image/compressed", 10, {}, "image/compressed is: set image_transport"),
        (
            Image,
            "image",
            BEST_EFFORT,
            {"image_reliability": "reliable"},
            "as best effort, while reliable is asked for: set image_reliability",
        ),
        (Image, "image", BEST_EFFORT, {}, "probe, which has sent nothing"),
    ],
)
def test_why_no_image_comes_is_said(
    soon: None,
    own_tracker: OwnTracker,
    publishers: list[Any],
    capfd: pytest.CaptureFixture[str],
    kind: Any,
    topic: str,
    quality: Any,
    values: dict[str, Any],
    reason: str,
) -> None:
    tracker = own_tracker(**values)
    if kind is not None:
        name = f"{tracker.ns}/{topic}"
        publishers.append(tracker.probe.node.create_publisher(kind, name, quality))
    status = Report(tracker, "frames").wait(WARN, reason)
    asked = values.get("image_reliability", "best effort")
    assert f"on {tracker.ns}/image (sensor_msgs/msg/Image, {asked})" in status.message
    wait_for(Log(capfd).says_silence, "the line in the log")


def test_another_type_on_the_topic_is_named(soon: None, own_tracker: OwnTracker) -> None:
    tracker = own_tracker()
    topic = f"{tracker.ns}/image"
    with offered_by_another("jpeg_camera", "sensor_msgs", "CompressedImage", topic):
        status = Report(tracker, "frames").wait(
            WARN, "/jpeg_camera as sensor_msgs/msg/CompressedImage, not as sensor_msgs/msg/Image"
        )
    assert "set image_transport" in status.message


def test_images_end_the_alarm_and_it_is_said_once(
    soon: None, own_tracker: OwnTracker, capfd: pytest.CaptureFixture[str]
) -> None:
    tracker = own_tracker()
    report = Report(tracker, "frames")
    report.wait(WARN, "nobody publishes")
    tracker.send(0)
    report.wait(OK, "ok")
    report.wait(WARN, "which has sent nothing")
    time.sleep(0.5)  # in which it would be said again, and again
    assert Log(capfd).says_silence() == 2
    tracker.change(Transition.TRANSITION_DEACTIVATE)
    report.wait(OK, "ok")  # nothing is waited for


def test_several_cameras_on_one_topic_are_named(
    soon: None, own_tracker: OwnTracker, publishers: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "NO_IMAGE_AFTER_S", 60.0)
    tracker = own_tracker()
    topic, report = f"{tracker.ns}/image", Report(tracker, "frames")
    publishers += [tracker.probe.node.create_publisher(Image, topic, 10) for _ in range(2)]
    status = report.wait(WARN, f"{topic} is published by /probe and /probe")
    assert "end one, or remap it" in status.message
    tracker.probe.node.destroy_publisher(publishers.pop())
    report.wait(OK, "ok")


def test_a_tracker_that_drops_half_of_the_images_warns(own_tracker: OwnTracker) -> None:
    tracker = own_tracker()
    tracker.send(0)
    with tracker.busy():
        for index in range(1, 8):
            tracker.probe.publish(f"{tracker.ns}/image", scene_message(index))
            wait_for(lambda n=index: tracker.count("received") == n + 1, "receipt")
        Report(tracker, "frames").wait(WARN, "6 of 8 images dropped in the last 10 s")


def test_what_fails_is_an_error_with_its_reason(
    own_tracker: OwnTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = own_tracker()
    tracker.send(0)

    def fail(*_: Any) -> bool:
        raise RuntimeError("the card is on fire")

    with monkeypatch.context() as broken:
        broken.setattr(tracker.node._parts.session, "track", fail)
        tracker.probe.publish(f"{tracker.ns}/image", scene_message(1))
        status = Report(tracker, "frames").wait(ERROR, "1 failed in the last 10 s")
    assert "RuntimeError: the card is on fire" in status.message


def test_refusals_before_a_new_configuration_are_no_news(own_tracker: OwnTracker) -> None:
    tracker = own_tracker()
    tracker.send(0)
    nothing = np.zeros((HEIGHT, WIDTH), np.uint16)
    tracker.probe.publish(f"{tracker.name}/init_mask", labels_message(nothing, header(0)))
    report = Report(tracker, "refusals")
    report.wait(WARN, "1 refused")
    tracker.change(Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)
    tracker.probe.forget()
    tracker.change(Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
    first = Report(tracker, "refusals").next()
    assert (first.level, first.message) == (OK, "ok")


def test_a_snapshot_that_fails_is_an_error(own_tracker: OwnTracker, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    tracker = own_tracker(snapshot_path=str(folder / "snapshot"), snapshot_period=0.2)
    tracker.send(0)
    report = Report(tracker, "snapshots")
    report.wait(OK, "ok")
    folder.rename(tmp_path / "elsewhere")
    folder.write_text("a file where the folder was")
    report.wait(ERROR, "was not saved")
    folder.unlink()
    report.wait(OK, "ok")


def test_a_copy_for_a_snapshot_that_fails_is_an_error(
    own_tracker: OwnTracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = own_tracker(snapshot_path=str(tmp_path / "snapshot"), snapshot_period=0.2)
    report = Report(tracker, "snapshots")

    def fail() -> Any:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as broken:
        broken.setattr(tracker.node._parts.session._lazy, "snapshot", fail)
        report.wait(ERROR, "cannot be copied: out of memory")
    report.wait(OK, "ok")


def test_users_may_override_the_quality_of_service(own_tracker: OwnTracker) -> None:
    name = "qos_overrides./quality/image.subscription"
    values = {f"{name}.reliability": "reliable"}
    tracker = own_tracker("/quality", **values, **{f"{name}.depth": 2})
    [offer] = tracker.probe.node.get_subscriptions_info_by_topic("/quality/image")
    assert offer.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    with pytest.raises(NodeStartError, match="cannot be subscribed to"):
        own_tracker("/quality", **values, **{f"{name}.history": "nonsense"})


def test_another_configuration_may_ask_for_another_reliability(own_tracker: OwnTracker) -> None:
    """Though `qos_overrides` of the first remain."""
    tracker = own_tracker()
    tracker.change(Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)
    assert tracker.set(image_reliability="reliable") == ""
    tracker.change(Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
    subscription = tracker.node._parts.images._subscription
    assert subscription.qos_profile.reliability == ReliabilityPolicy.RELIABLE
