# SPDX-License-Identifier: Apache-2.0
"""Tracks as `visualization_msgs`, where that is installed: boxes and names for RViz 2 and Foxglove.

They are drawn on a plane in front of the camera, in its optical frame (x to the right, y down,
z forward). A pixel is PIXEL wide there: nothing is known of the lens.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from geometry_msgs.msg import Point
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from std_msgs.msg import ColorRGBA, Header

from lazyxmem_ros.images.drawing import object_colour
from lazyxmem_ros.nodes.tracker.overlay import track_names

if TYPE_CHECKING:
    from lazyxmem_ros.lazy import Track

QUEUE_DEPTH = 10
PIXEL = 0.001
"""Metres."""
DISTANCE = 1.0
"""Metres from the camera to the plane."""
LINE_WIDTH = 2 * PIXEL
TEXT_HEIGHT = 14 * PIXEL


class Markers:
    """The publisher of `~/markers`, on which nothing is sent unless somebody subscribes.

    Where `visualization_msgs` is not installed that is said, and nothing is published.
    """

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._publisher: Any = None
        try:
            self._messages: Any = importlib.import_module("visualization_msgs.msg")
        except ImportError:
            node.get_logger().info(
                "visualization_msgs is not installed: ~/markers is not published"
            )
            return
        self._publisher = node.create_lifecycle_publisher(
            self._messages.MarkerArray, "~/markers", QoSProfile(depth=QUEUE_DEPTH)
        )

    def publish(self, header: Header, tracks: Iterable[Track], size: tuple[int, int]) -> None:
        """A box and a name for each track in view, in place of those before. size: (H, W)."""
        if self._publisher is None or not self._publisher.get_subscription_count():
            return
        tracks = list(tracks)
        names = track_names(tracks)
        kinds = self._messages.Marker
        markers = [kinds(header=header, action=kinds.DELETEALL)]
        for track in tracks:
            if track.box is not None:
                markers += self._box_and_name(header, track, names[track.object_id], size)
        self._publisher.publish(self._messages.MarkerArray(markers=markers))

    def close(self) -> None:
        """Take the publisher off the graph."""
        if self._publisher is not None:
            self._node.destroy_lifecycle_publisher(self._publisher)

    def _box_and_name(
        self, header: Header, track: Track, name: str, size: tuple[int, int]
    ) -> list[Any]:
        assert track.box is not None
        x0, y0, x1, y1 = track.box
        corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
        kinds, color = self._messages.Marker, _color(track.object_id)
        box = kinds(
            header=header,
            ns="box",
            id=track.object_id,
            type=kinds.LINE_STRIP,
            color=color,
            points=[_on_plane(x, y, size) for x, y in corners],
        )
        box.scale.x = LINE_WIDTH
        box.pose.orientation.w = 1.0
        text = kinds(
            header=header,
            ns="name",
            id=track.object_id,
            type=kinds.TEXT_VIEW_FACING,
            color=color,
            text=name,
        )
        text.pose.position = _on_plane((x0 + x1) / 2, y0, size)
        text.pose.position.y -= TEXT_HEIGHT
        text.pose.orientation.w = 1.0
        text.scale.z = TEXT_HEIGHT
        return [box, text]


def _on_plane(x: float, y: float, size: tuple[int, int]) -> Point:
    height, width = size
    return Point(x=(x - width / 2) * PIXEL, y=(y - height / 2) * PIXEL, z=DISTANCE)


def _color(object_id: int) -> ColorRGBA:
    red, green, blue = (channel / 255 for channel in object_colour(object_id))
    return ColorRGBA(r=red, g=green, b=blue, a=1.0)
