# SPDX-License-Identifier: Apache-2.0
"""The tracker node over DDS: what its topics promise to whoever listens, early or late."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from node_graph import FIRST_STAMP, header, labels_of, scene, scene_message, wait_for
from rclpy.logging import get_logger
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Header
from tracker_harness import NODE, Tracker, ask_the_operator

from lazyxmem_ros.data.label_maps import VOID
from lazyxmem_ros.lazy import Track, TrackState
from lazyxmem_ros.msg import CorrectionRequest
from lazyxmem_ros.nodes.diagnostics import Refusals
from lazyxmem_ros.nodes.tracker.detections import Detections
from lazyxmem_ros.nodes.tracker.diagnostics import TrackerMeasures
from lazyxmem_ros.nodes.tracker.publishers import MIN_REQUESTS_KEPT, TrackerOutputs
from lazyxmem_ros.nodes.tracker.received_frames import ReceivedFrame

LATCHED = QoSProfile(depth=MIN_REQUESTS_KEPT, durability=DurabilityPolicy.TRANSIENT_LOCAL)
WIDE_ID = 300


def test_who_begins_to_listen_late_gets_the_open_requests(tracker: Tracker) -> None:
    asked = ask_the_operator(tracker)
    heard: list[CorrectionRequest] = []
    node = tracker.probe.node
    topic = f"{NODE}/correction_request"
    late = node.create_subscription(CorrectionRequest, topic, heard.append, LATCHED)
    try:
        wait_for(lambda: heard and heard[-1] == asked, "the request that is open")
    finally:
        node.destroy_subscription(late)


class LifecycleNode:
    """Keeps what is published, as a node would send it."""

    def __init__(self) -> None:
        self.published: dict[str, list[Any]] = {}
        self.quality: dict[str, QoSProfile] = {}

    def resolve_topic_name(self, name: str) -> str:
        return name

    resolve_service_name = resolve_topic_name

    def get_logger(self) -> Any:
        return get_logger("stand_in")

    def create_lifecycle_publisher(self, _: type, topic: str, quality: QoSProfile) -> Any:
        kept = self.published.setdefault(topic, [])
        self.quality[topic] = quality

        class Publisher:
            publish = staticmethod(kept.append)
            get_subscription_count = staticmethod(lambda: 0)
            is_activated = True

        return Publisher()

    create_publisher = create_lifecycle_publisher


def track(object_id: int, **fields: Any) -> Track:
    values = {
        "object_id": object_id,
        "state": TrackState.TRACKED,
        "box": (10, 20, 40, 30),
        "area": 300,
        "uncertainty": 0.1,
        "uncertainty_rate": None,
        "predicted_iou": 0.75,
        "label": "",
    }
    return Track(**{**values, **fields})


def test_the_masks_encoding_is_that_of_the_objects_followed() -> None:
    """Not of those in view."""
    node: Any = LifecycleNode()
    outputs = TrackerOutputs(
        node,
        setting={"max_open_requests": 3}.__getitem__,
        measures=TrackerMeasures(Refusals(pytest.fail)),
    )
    frame = ReceivedFrame(FIRST_STAMP, "image", scene_message(0), 0.0)
    labels = scene(0)[1].astype(np.uint16)
    largest_ids = (1, 254, VOID, WIDE_ID, 1, 0)
    for largest_id in largest_ids:
        tracks = [track(1, box=None)]
        result: Any = SimpleNamespace(labels=labels, tracks=tracks, changes=[])
        frame.labels = labels
        outputs.publish_frame(frame, result, largest_id=largest_id)
    frame.labels = labels * WIDE_ID
    outputs.publish_frame(frame, None, largest_id=0)
    encodings = [message.encoding for message in node.published["~/mask"]]
    assert encodings == ["mono8", "mono8", "mono16", "mono16", "mono8", "mono8", "mono16"]
    for message in node.published["~/mask"]:
        assert (labels_of(message) > 0).sum() == labels.sum()


def test_tracks_are_detections_where_vision_msgs_is_installed() -> None:
    pytest.importorskip("vision_msgs", reason="vision_msgs is not installed; it has no wheel")
    node: Any = LifecycleNode()
    detections = Detections(node)
    for index in range(3):
        tracks = [track(7, label="cup"), track(2, box=None), track(3, predicted_iou=None)]
        detections.publish(header(index), tracks)
    [*_, newest] = node.published["~/detections"]
    assert len(node.published["~/detections"]) == 3
    assert newest.header == header(2)
    third, seventh = newest.detections
    assert (third.id, third.results[0].hypothesis.class_id) == ("3", "3")
    assert np.isnan(third.results[0].hypothesis.score)
    assert seventh.results[0].hypothesis.score == 0.75
    assert (seventh.bbox.center.position.x, seventh.bbox.center.position.y) == (25.0, 25.0)
    assert (seventh.bbox.size_x, seventh.bbox.size_y) == (30.0, 10.0)
    [info] = node.published["~/label_info"]
    assert [(c.class_id, c.class_name) for c in info.class_map] == [(2, "2"), (3, "3"), (7, "cup")]
    assert node.quality["~/label_info"].durability == DurabilityPolicy.TRANSIENT_LOCAL
    detections.publish(Header(), [])
    assert not node.published["~/label_info"][-1].class_map


def test_labels_that_an_inactive_node_could_not_send_follow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who listens late has the newest. With stand-ins for the messages, which have no wheel."""
    made = SimpleNamespace(
        VisionClass=SimpleNamespace, LabelInfo=SimpleNamespace, Detection2DArray=SimpleNamespace
    )
    monkeypatch.setitem(sys.modules, "vision_msgs", SimpleNamespace(msg=made))
    monkeypatch.setitem(sys.modules, "vision_msgs.msg", made)
    node: Any = Mock()
    publisher = node.create_lifecycle_publisher.return_value
    detections = Detections(node)
    sent = []
    for publisher.is_activated in (False, True, True):
        publisher.publish.reset_mock()
        detections.publish(header(0), [track(2, box=None)])
        calls = publisher.publish.call_args_list
        sent.append(any(hasattr(call.args[0], "class_map") for call in calls))
    assert sent[1:] == [True, False]
