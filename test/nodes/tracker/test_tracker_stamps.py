# SPDX-License-Identifier: Apache-2.0
"""The tracker node over DDS: which stamps it takes, and which clocks it follows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from node_graph import (
    Probe,
    header,
    scene,
    scene_message,
    show_until_tracked,
    wait_for,
)
from node_process import NodeProcess
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from tracker_harness import NODE, NS, Tracker, click, with_fields

from lazyxmem_ros.msg import Correction, NewObject
from lazyxmem_ros.nodes.conversions import labels_message
from lazyxmem_ros.srv import AddObjects, ListObjects

Start = Callable[..., NodeProcess]
NO_TIMES = [Time(sec=2**31 - 1, nanosec=2**32 - 1), Time(sec=-5), Time(sec=1, nanosec=10**9)]


@pytest.fixture(params=["0", "1"])
def checking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without the checks of fields, which are the rule on Humble."""
    monkeypatch.setenv("ROS_PYTHON_CHECK_FIELDS", request.param)


def test_stamps_that_are_no_time_are_refused_on_every_way_in(
    checking: None, weights: Path, probe: Probe, start: Start
) -> None:
    probe.forget()
    name = "/stamps/lazyxmem_tracker"
    values = {"weights": weights, "device": "cpu", "image_reliability": "reliable"}
    # Modules of messages read that variable when they are imported.
    tracker = start("tracker", values, "-r", "__ns:=/stamps", fresh=True)
    probe.listen(Image, f"{name}/mask")
    probe.listen(Correction, f"{name}/corrected")
    shown = show_until_tracked(probe, "/stamps", 0)
    labels = labels_message(scene(shown)[1].astype(np.uint16), header(shown))
    probe.publish(f"{name}/init_mask", labels)
    wait_for(lambda: np.any(probe.messages(f"{name}/mask")[-1].data), "the object")
    for number, stamp in enumerate(NO_TIMES):
        odd = Header(stamp=stamp, frame_id="camera")
        probe.publish("/stamps/image", with_fields(scene_message(shown + 1), header=odd))
        probe.publish(f"{name}/init_mask", with_fields(labels, header=odd))
        correction = Correction(header=odd, id=1, positive=[click(0)])
        probe.publish(f"{name}/operator_correction", correction)
        wait_for(lambda n=number: len(probe.messages(f"{name}/corrected")) > n, "the refusal")
        refused = probe.messages(f"{name}/corrected")[-1]
        assert not refused.applied
        assert "the stamp has" in refused.message
        request = AddObjects.Request(header=odd, objects=[NewObject(positive=[click(0)])])
        answer: Any = probe.call(AddObjects, f"{name}/add_objects", request)
        assert not answer.success
        assert "the stamp has" in answer.message
    listed = probe.call(ListObjects, f"{name}/list_objects", ListObjects.Request())
    assert [track.id for track in listed.objects] == [1]
    assert "image: refused: the stamp has" in tracker.log
    assert "init_mask: refused: the stamp has" in tracker.log
    assert "Traceback" not in tracker.log
    assert tracker.stop() == 0


@pytest.mark.parametrize("jump", [-36_000, 36_000])
def test_another_clock_is_followed_with_the_objects(
    tracker: Tracker, jump: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """An hour ahead or back, after a stray image of years ago."""
    tracker.show_object(36_000)
    for index in range(36_001, 36_004):
        tracker.send(index)
    tracker.probe.publish(f"{NS}/image", with_fields(scene_message(1), header=header(-(10**9))))
    before = sum(tracker.refusals().values())
    tracker.probe.publish(f"{NS}/image", scene_message(36_004 + jump))
    tracker.probe.publish(f"{NS}/image", scene_message(36_005 + jump))
    wait_for(lambda: sum(tracker.refusals().values()) >= before + 2, "the refusals")
    assert tracker.objects() == [1]
    for index in range(36_006, 36_012):
        tracker.send(index + jump)
        assert tracker.objects() == [1]
    said = capfd.readouterr().err
    assert said.count("another clock is followed") == 1
    # A mask of a frame of the new clock, and an answer to it, find their frame.
    labels = scene(36_011 + jump)[1].astype(np.uint16) * 7
    message = labels_message(labels, header(36_011 + jump))
    tracker.probe.publish(f"{NODE}/init_mask", message)
    wait_for(lambda: tracker.objects() == [1, 7], "the second object")
