# SPDX-License-Identifier: Apache-2.0
"""What the tracker node publishes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from lazyxmem_ros import msg
from lazyxmem_ros.basics import MAX_STAMP, BoolMask, Labels
from lazyxmem_ros.correction.base import Prompt
from lazyxmem_ros.images.drawing import overlay
from lazyxmem_ros.lazy.policy import OBJECTS_TOGETHER
from lazyxmem_ros.nodes.conversions import (
    image_message,
    labels_message,
    mask_message,
    region_message,
    time_message,
)
from lazyxmem_ros.nodes.diagnostics import LogLimiter
from lazyxmem_ros.nodes.logs import error_of
from lazyxmem_ros.nodes.prompts import prompt_message
from lazyxmem_ros.nodes.tracker.detections import Detections
from lazyxmem_ros.nodes.tracker.diagnostics import TrackerMeasures
from lazyxmem_ros.nodes.tracker.markers import Markers
from lazyxmem_ros.nodes.tracker.overlay import track_names
from lazyxmem_ros.nodes.tracker.pictures import NewestOnly
from lazyxmem_ros.nodes.tracker.received_frames import ReceivedFrame
from lazyxmem_ros.nodes.tracker.worker import MAX_WORK

if TYPE_CHECKING:
    from lazyxmem_ros.lazy import Request, Source, StateChange, StepResult, Track
    from lazyxmem_ros.nodes.tracker.records import Records

QUEUE_DEPTH = 10
NO_DEADLINE = 0
OPERATOR = "operator"
"""The `source` of what a person has said."""
MIN_REQUESTS_KEPT = 10
"""Requests to a person that somebody who begins to listen late still gets, at least."""


class TrackerOutputs:
    """All that the tracker publishes.

    It knows nothing of who uses it. The worker's thread calls it.
    """

    def __init__(
        self,
        node: LifecycleNode,
        *,
        setting: Callable[[str], Any],
        measures: TrackerMeasures,
        records: Records | None = None,
    ) -> None:
        """setting(name): the present value of a parameter.

        records: what is asked and said goes there, too.
        """
        self._node = node
        self._setting = setting
        self._measures = measures
        self._records = records

        def publisher(message_type: Any, name: str, quality: QoSProfile | None = None) -> Any:
            return node.create_lifecycle_publisher(
                message_type, f"~/{name}", quality or QoSProfile(depth=QUEUE_DEPTH)
            )

        latched = QoSProfile(
            depth=max(MIN_REQUESTS_KEPT, OBJECTS_TOGETHER * setting("max_open_requests")),
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )

        self._mask = publisher(Image, "mask")
        self._tracks = publisher(msg.TrackArray, "tracks")
        self._overlay = publisher(Image, "overlay")
        self._uncertainty = publisher(Image, "uncertainty")
        self._request = publisher(msg.CorrectionRequest, "correction_request", latched)
        # Not of the life cycle: whoever answers an inactive node is told that it takes nothing.
        self._corrected = node.create_publisher(
            msg.Correction, "~/corrected", QoSProfile(depth=MAX_WORK)
        )
        self._detections = Detections(node)
        self._markers = Markers(node)
        self._limiter = LogLimiter(error_of(node))
        self._pictures = NewestOnly("tracker-pictures", self._picture_failed)
        self.overlays_made = 0
        self.uncertainty_maps_made = 0

    # ---- frames

    def publish_frame(
        self, frame: ReceivedFrame, result: StepResult | None, *, largest_id: int
    ) -> None:
        """The frame's label map and tracks. The pictures that somebody looks at follow by
        themselves, where there is time for them: they hold up no mask.

        result: None while nothing is tracked. largest_id: of all objects that are followed.
        """
        header, labels = frame.header, frame.labels
        assert labels is not None
        tracks = [] if result is None else result.tracks
        self._mask.publish(labels_message(labels, header, largest_id=largest_id))
        self._tracks.publish(msg.TrackArray(header=header, tracks=track_messages(tracks)))
        self._detections.publish(header, tracks)
        self._markers.publish(header, tracks, (labels.shape[0], labels.shape[1]))
        if self._overlay.get_subscription_count() or self._uncertainty.get_subscription_count():
            # They hold the image that was decoded for the tracker, until they are drawn.
            self._pictures.offer(
                partial(self._publish_pictures, frame, frame.decoded, labels, result)
            )
        self._count_frame(frame)
        self._say_changes([] if result is None else result.changes)

    def _publish_pictures(
        self,
        frame: ReceivedFrame,
        image: NDArray[np.uint8] | None,
        labels: Labels,
        result: StepResult | None,
    ) -> None:
        """What somebody looks at, of the newest frame for which there is time.

        image: the frame's RGB uint8 [H, W, 3], where it is still there.
        """
        if self._overlay.get_subscription_count():
            self.overlays_made += 1
            names = track_names([] if result is None else result.tracks)
            opacity = self._setting("overlay_opacity")
            rgb = frame.rgb() if image is None else image
            drawn = overlay(rgb, labels, names=names, opacity=opacity)
            self._overlay.publish(image_message(drawn, "rgb8", frame.header))
        if self._uncertainty.get_subscription_count():
            self.uncertainty_maps_made += 1
            entropy = np.zeros(labels.shape, np.float32)
            if result is not None:
                entropy = np.asarray(result.uncertainty_map(), np.float32)
            self._uncertainty.publish(image_message(entropy, "32FC1", frame.header))

    def _count_frame(self, frame: ReceivedFrame) -> None:
        """A frame that goes out again is no other frame, and in an inactive node none goes out."""
        if not self._mask.is_activated:
            self._measures.count("dropped")
        elif not frame.published:
            frame.published = True
            self._measures.count("tracked")
            self._measures.tracked.add()
            self._measures.latency.add(time.monotonic() - frame.received_at)

    def _say_changes(self, changes: Iterable[StateChange]) -> None:
        from lazyxmem_ros.lazy import TrackState

        for change in changes:
            states = (change.before, change.after)
            if TrackState.LOST in states and TrackState.PAUSED not in states:
                name = f"object {change.object_id}" + (change.label and f" ({change.label})")
                what = "is lost" if change.after is TrackState.LOST else "was found again"
                self._node.get_logger().info(f"{name} {what}")

    # ---- corrections

    def publish_request(
        self, header: Header, request: Request, uncertainty: NDArray[np.float32]
    ) -> None:
        """A request to a person. header: the frame's; uncertainty: of its pixels [H, W], 0..1."""
        shades = np.rint(uncertainty * np.iinfo(np.uint8).max).astype(np.uint8)
        message = msg.CorrectionRequest(
            header=header,
            id=request.object_id,
            label=request.label,
            reason=request.reason,
            uncertainty=float(request.uncertainty),
            uncertainty_rate=_or_nan(request.uncertainty_rate),
            image=image_message(request.image, "rgb8", header),
            mask=mask_message(request.mask, header),
            uncertainty_map=image_message(shades, "mono8", header),
            deadline=time_message(min(request.deadline or NO_DEADLINE, MAX_STAMP)),
        )
        self._request.publish(message)
        if self._records is not None:
            self._records.request(message)

    def publish_corrected(
        self,
        header: Header,
        object_id: int,
        mask: BoolMask | None,
        *,
        source: Source,
        applied: bool,
        reason: str,
    ) -> None:
        """What became of a correction; mask bool [H, W], None where there is none."""
        message = msg.Correction(
            header=header,
            id=object_id,
            prompt=prompt_message(Prompt(mask=mask), header),
            source=source.value,
            applied=applied,
            message=reason,
        )
        self._corrected.publish(message)
        if self._records is not None and message.source == OPERATOR:
            self._records.outcome(message)

    # ---- records

    def record_answer(self, message: msg.Correction, frame: ReceivedFrame | None) -> None:
        """Keeps what a person has said, where that is wanted. frame: that it names, if known."""
        if self._records is not None:
            self._records.answer(message, frame)

    def record_objects(self, stamp: int, objects: Mapping[int, str]) -> None:
        """Keeps which objects are followed (id -> label) from the frame of a stamp (ns) on."""
        if self._records is not None:
            self._records.see_objects(stamp, objects)

    def begin_records_again(self) -> None:
        """Other frames may have the stamps of earlier ones from now on."""
        if self._records is not None:
            self._records.forget_frames()

    def _picture_failed(self, error: BaseException) -> None:
        self._limiter.say(type(error).__name__, f"a picture for people failed: {error}")

    def close(self) -> None:
        """Take the publishers off the graph."""
        self._pictures.close()
        self._detections.close()
        self._markers.close()
        for publisher in (
            self._mask,
            self._tracks,
            self._overlay,
            self._uncertainty,
            self._request,
        ):
            self._node.destroy_lifecycle_publisher(publisher)
        self._node.destroy_publisher(self._corrected)


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
