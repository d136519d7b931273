# SPDX-License-Identifier: Apache-2.0
"""The tracker node over DDS: what it raises an alarm about, on /diagnostics and in its log."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from node_graph import NodeProcess, Probe, scene_message, wait_for
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from tracker_harness import Tracker

from lazyxmem_ros.nodes.diagnostics import ERROR, OK, WARN
from lazyxmem_ros.nodes.tracker import images

OwnTracker = Callable[..., Tracker]
Start = Callable[..., NodeProcess]
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)


class Report:
    """The newest status of a part of a tracker."""

    def __init__(self, tracker: Tracker, part: str) -> None:
        self._tracker = tracker
        self._name = f"{tracker.name.lstrip('/')}: {part}"
        tracker.probe.listen(DiagnosticArray, "/diagnostics")

    def newest(self) -> DiagnosticStatus | None:
        found = [
            status
            for message in self._tracker.probe.messages("/diagnostics")
            for status in message.status
            if status.name == self._name
        ]
        return found[-1] if found else None

    def wait(self, level: bytes, text: str) -> DiagnosticStatus:
        def came() -> bool:
            newest = self.newest()
            return newest is not None and newest.level == level and text in newest.message

        wait_for(came, f"{level!r} with {text!r}, instead of {self.newest()}")
        status = self.newest()
        assert status is not None
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
    monkeypatch.setattr(images, "SILENCE_CHECK_PERIOD_S", 0.1)


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


PUBLISHES = """
import sys, time, rclpy
from sensor_msgs.msg import CompressedImage
rclpy.init()
node = rclpy.create_node("jpeg_camera")
publisher = node.create_publisher(CompressedImage, sys.argv[1], 10)
time.sleep(60)
"""


def test_another_type_on_the_topic_is_named(soon: None, own_tracker: OwnTracker) -> None:
    """In a process of its own: one participant knows one type of a topic."""
    tracker = own_tracker()
    camera = subprocess.Popen([sys.executable, "-c", PUBLISHES, f"{tracker.ns}/image"])
    try:
        status = Report(tracker, "frames").wait(
            WARN, "/jpeg_camera as sensor_msgs/msg/CompressedImage, not as sensor_msgs/msg/Image"
        )
    finally:
        camera.kill()
        camera.wait()
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

    def fail() -> Any:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as broken:
        broken.setattr(tracker.node._parts.session._lazy, "snapshot", fail)
        Report(tracker, "snapshots").wait(ERROR, "cannot be copied: out of memory")
    Report(tracker, "snapshots").wait(OK, "ok")


def test_users_may_override_the_quality_of_service(
    own_tracker: OwnTracker, weights: Path, probe: Probe, start: Start
) -> None:
    topic = "/quality/image"
    name = f"qos_overrides.{topic}.subscription"
    values = {"weights": weights, "device": "cpu", f"{name}.reliability": "reliable"}
    tracker = start("tracker", {**values, f"{name}.depth": 2}, "-r", "__ns:=/quality")
    wait_for(lambda: probe.node.count_subscribers(topic), "the subscription")
    [offer] = probe.node.get_subscriptions_info_by_topic(topic)
    assert offer.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    assert tracker.stop() == 0
    wrong = start("tracker", {**values, f"{name}.history": "nonsense"}, "-r", "__ns:=/quality")
    assert wrong.wait() == 1
    assert "cannot be subscribed to" in wrong.log
    assert "Traceback" not in wrong.log


def test_another_configuration_may_ask_for_another_reliability(own_tracker: OwnTracker) -> None:
    """Though `qos_overrides` of the first remain."""
    tracker = own_tracker()
    tracker.change(Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)
    assert tracker.set(image_reliability="reliable") == ""
    tracker.change(Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
    subscription = tracker.node._parts.images._subscription
    assert subscription.qos_profile.reliability == ReliabilityPolicy.RELIABLE
