# SPDX-License-Identifier: Apache-2.0
"""The tracker's image topics: what comes in is checked, counted and left for the worker."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from lazyxmem_ros.nodes.conversions import ImageError, check_image, stamp_of
from lazyxmem_ros.nodes.diagnostics import Counts, Rate, Refusals
from lazyxmem_ros.nodes.frames import FrameHistory, ReceivedFrame
from lazyxmem_ros.nodes.worker import Worker

if TYPE_CHECKING:
    from lazyxmem_ros.nodes.session import TrackingSession

QUEUE_DEPTH = 5
NO_STAMP = -1


class ImageInput:
    """Subscribes to `image` and `image/compressed`; the newest frame goes to the worker."""

    def __init__(
        self,
        node: Node,
        worker: Worker[ReceivedFrame],
        session: TrackingSession,
        history: FrameHistory,
        counts: Counts,
        refusals: Refusals,
        *,
        reliable: bool,
    ) -> None:
        """Raises counts `received` and `dropped`; `rate` is that of what was received."""
        self._node = node
        self._worker = worker
        self._session = session
        self._history = history
        self._counts = counts
        self._refusals = refusals
        self.rate = Rate()
        self._last_stamp = NO_STAMP
        quality = QoSProfile(
            depth=QUEUE_DEPTH,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        )
        self._subscriptions = []
        for message_type, name in ((Image, "image"), (CompressedImage, "image/compressed")):
            topic = node.resolve_topic_name(name)
            callback = partial(self._on_image, topic)
            self._subscriptions.append(
                node.create_subscription(message_type, name, callback, quality)
            )

    def forget_stamps(self) -> None:
        """Take whatever stamp comes next."""
        self._last_stamp = NO_STAMP

    def close(self) -> None:
        """Stop listening."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def _on_image(self, topic: str, message: Image | CompressedImage) -> None:
        received_at = time.monotonic()
        self._counts.add("received")
        self.rate.add()
        try:
            check_image(message)
        except ImageError as error:
            self._refusals.refuse(topic, "image", str(error))
            return
        stamp = stamp_of(message.header.stamp)
        if not self._take_stamp(topic, stamp):
            return
        frame = ReceivedFrame(stamp, topic, message, received_at)
        self._history.add(frame)
        if self._worker.offer(frame):
            self._counts.add("dropped")

    def _take_stamp(self, topic: str, stamp: int) -> bool:
        if stamp == 0:
            self._refusals.refuse(topic, "no stamp", "the image carries no stamp")
            return False
        if stamp == self._last_stamp:
            self._refusals.refuse(topic, "same stamp", f"a second image of stamp {stamp} ns")
            return False
        if stamp < self._last_stamp:
            if self._session.object_ids:
                seconds = (self._last_stamp - stamp) / 1e9
                self._refusals.refuse(
                    topic,
                    "stamp runs backwards",
                    f"the stamp is {seconds:.3f} s before the newest one; call ~/reset to begin "
                    "again with another clock",
                )
                return False
            # Nothing is tracked, so a recording that begins again costs nothing.
            self._history.clear()
            self._worker.post(partial(self._session.reset, images=False))
        self._last_stamp = stamp
        return True
