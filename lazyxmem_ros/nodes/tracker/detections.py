# SPDX-License-Identifier: Apache-2.0
"""Tracks as `vision_msgs`, where that is installed: boxes for whoever knows no other message."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Header

if TYPE_CHECKING:
    from lazyxmem_ros.lazy import Track

QUEUE_DEPTH = 10
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Detections:
    """The publishers of `~/detections` and of the latched `~/label_info`.

    Object ids are the classes, so that `~/label_info` explains `~/detections` and `~/mask` alike.
    Where `vision_msgs` is not installed that is said, and nothing is published.
    """

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._publishers: list[Any] = []
        self._named: dict[int, str] | None = None
        try:
            self._messages: Any = importlib.import_module("vision_msgs.msg")
        except ImportError:
            node.get_logger().info(
                "vision_msgs is not installed: ~/detections and ~/label_info are not published"
            )
            return
        self._detections = node.create_lifecycle_publisher(
            self._messages.Detection2DArray, "~/detections", QoSProfile(depth=QUEUE_DEPTH)
        )
        self._label_info = node.create_lifecycle_publisher(
            self._messages.LabelInfo, "~/label_info", LATCHED
        )
        self._publishers = [self._detections, self._label_info]

    def publish(self, header: Header, tracks: Iterable[Track]) -> None:
        """The boxes of the tracks in view, and the labels of all where they have changed."""
        if not self._publishers:
            return
        followed = sorted(tracks, key=attrgetter("object_id"))
        named = {track.object_id: track.label for track in followed}
        if named != self._named:
            # What an inactive node publishes goes nowhere, and has to follow.
            self._named = named if self._label_info.is_activated else None
            self._label_info.publish(self._labels(header, named))
        boxes = [self._detection(header, track) for track in followed if track.box is not None]
        self._detections.publish(self._messages.Detection2DArray(header=header, detections=boxes))

    def close(self) -> None:
        """Take the publishers off the graph."""
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)

    def _labels(self, header: Header, named: dict[int, str]) -> Any:
        classes = [
            self._messages.VisionClass(class_id=object_id, class_name=label or str(object_id))
            for object_id, label in named.items()
        ]
        return self._messages.LabelInfo(header=header, class_map=classes)

    def _detection(self, header: Header, track: Track) -> Any:
        assert track.box is not None
        x0, y0, x1, y1 = (float(edge) for edge in track.box)
        detection = self._messages.Detection2D(header=header, id=str(track.object_id))
        detection.bbox.center.position.x = (x0 + x1) / 2
        detection.bbox.center.position.y = (y0 + y1) / 2
        detection.bbox.size_x, detection.bbox.size_y = x1 - x0, y1 - y0
        result = self._messages.ObjectHypothesisWithPose()
        result.hypothesis.class_id = str(track.object_id)
        predicted = track.predicted_iou
        result.hypothesis.score = math.nan if predicted is None else float(predicted)
        detection.results = [result]
        return detection
