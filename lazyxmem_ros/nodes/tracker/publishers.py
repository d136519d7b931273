# SPDX-License-Identifier: Apache-2.0
"""What the tracker node publishes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from lazyxmem_ros import msg
from lazyxmem_ros.basics import BoolMask, Labels
from lazyxmem_ros.correction.base import Prompt
from lazyxmem_ros.nodes.conversions import (
    image_message,
    labels_message,
    mask_message,
    region_message,
    time_message,
)
from lazyxmem_ros.nodes.prompts import prompt_message
from lazyxmem_ros.nodes.tracker.frames import ReceivedFrame
from lazyxmem_ros.nodes.tracker.overlay import draw_overlay

if TYPE_CHECKING:
    from lazyxmem_ros.lazy import Request, StepResult, Track

QUEUE_DEPTH = 10


class TrackerOutputs:
    """The publishers of `~/mask`, `~/tracks`, `~/overlay`, `~/uncertainty` and the corrections."""

    def __init__(self, node: LifecycleNode, setting: Callable[[str], Any]) -> None:
        """setting(name): the present value of a parameter."""
        self._node = node
        self._setting = setting

        def publisher(message_type: Any, name: str) -> Any:
            return node.create_lifecycle_publisher(
                message_type, f"~/{name}", QoSProfile(depth=QUEUE_DEPTH)
            )

        self._mask = publisher(Image, "mask")
        self._tracks = publisher(msg.TrackArray, "tracks")
        self._overlay = publisher(Image, "overlay")
        self._uncertainty = publisher(Image, "uncertainty")
        self._request = publisher(msg.CorrectionRequest, "correction_request")
        self._corrected = publisher(msg.Correction, "corrected")
        self.overlays_made = 0
        self.uncertainty_maps_made = 0

    def publish_frame(
        self,
        frame: ReceivedFrame,
        image: NDArray[np.uint8],
        labels: Labels,
        result: StepResult | None,
    ) -> None:
        """The frame's label map and tracks, and the pictures that somebody looks at."""
        header = frame.header
        tracks = [] if result is None else result.tracks
        self._mask.publish(labels_message(labels, header))
        self._tracks.publish(msg.TrackArray(header=header, tracks=track_messages(tracks)))
        if self._overlay.get_subscription_count():
            self.overlays_made += 1
            drawn = draw_overlay(image, labels, tracks, opacity=self._setting("overlay_opacity"))
            self._overlay.publish(image_message(drawn, "rgb8", header))
        if self._uncertainty.get_subscription_count():
            self.uncertainty_maps_made += 1
            entropy = np.zeros(labels.shape, np.float32)
            if result is not None:
                entropy = np.asarray(result.uncertainty_map(), np.float32)
            self._uncertainty.publish(image_message(entropy, "32FC1", header))

    def publish_request(self, frame: ReceivedFrame, request: Request, deadline: int) -> None:
        """A request to a person; deadline: ROS time in nanoseconds."""
        header = frame.header
        self._request.publish(
            msg.CorrectionRequest(
                header=header,
                id=request.object_id,
                label=request.label,
                reason=request.reason,
                uncertainty=float(request.uncertainty),
                uncertainty_rate=_or_nan(request.uncertainty_rate),
                image=image_message(request.image, "rgb8", header),
                mask=mask_message(request.mask, header),
                deadline=time_message(deadline),
            )
        )

    def publish_corrected(
        self,
        header: Header,
        object_id: int,
        mask: BoolMask | None,
        *,
        source: str,
        applied: bool,
        reason: str,
    ) -> None:
        """What became of a correction; mask bool [H, W], None where there is none."""
        self._corrected.publish(
            msg.Correction(
                header=header,
                id=object_id,
                prompt=prompt_message(Prompt(mask=mask), header),
                source=source,
                applied=applied,
                message=reason,
            )
        )

    def close(self) -> None:
        """Take the publishers off the graph."""
        for publisher in (
            self._mask,
            self._tracks,
            self._overlay,
            self._uncertainty,
            self._request,
            self._corrected,
        ):
            self._node.destroy_lifecycle_publisher(publisher)


def track_messages(tracks: Iterable[Track]) -> list[msg.Track]:
    """Tracks of the core as messages, by ascending id."""
    return [_track_message(track) for track in sorted(tracks, key=attrgetter("object_id"))]


def _track_message(track: Track) -> msg.Track:
    return msg.Track(
        id=track.object_id,
        label=track.label,
        state=track.state.value,
        box=region_message(track.box),
        area=track.area,
        uncertainty=float(track.uncertainty),
        uncertainty_rate=_or_nan(track.uncertainty_rate),
        predicted_iou=_or_nan(track.predicted_iou),
    )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)
