# SPDX-License-Identifier: Apache-2.0
"""The tracker's image topic: what comes in is checked, counted and left for the worker."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image

from lazyxmem_ros.basics import StampRangeError, stamp_of
from lazyxmem_ros.images import ImageError, check_image
from lazyxmem_ros.nodes.diagnostics import Rate
from lazyxmem_ros.nodes.tracker.frames import ReceivedFrame, ReceivedFrames
from lazyxmem_ros.nodes.tracker.publishers import TrackerOutputs
from lazyxmem_ros.nodes.tracker.worker import Worker

if TYPE_CHECKING:
    from lazyxmem_ros.nodes.tracker.session import TrackingSession

QUEUE_DEPTH = 5
NO_STAMP = -1
TRANSPORTS = {"raw": (Image, "image"), "compressed": (CompressedImage, "image/compressed")}
"""What images come as -> the message type and the topic."""


class ImageInput:
    """Subscribes to `image` or `image/compressed`; the newest frame goes to the worker.

    Only to one of them: drivers offer a camera's images as both, and encode the compressed ones
    for as long as somebody listens.
    """

    def __init__(
        self,
        node: Node,
        worker: Worker[ReceivedFrame],
        session: TrackingSession,
        received: ReceivedFrames,
        outputs: TrackerOutputs,
        *,
        transport: str,
        reliable: bool,
    ) -> None:
        """Raises counts `received` and `dropped`; `rate` is that of what was received.

        transport: one of TRANSPORTS.
        """
        self._node = node
        self._worker = worker
        self._session = session
        self._received = received
        self._outputs = outputs
        self._message_type, self._name = TRANSPORTS[transport]
        self._quality = QoSProfile(
            depth=QUEUE_DEPTH,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        )
        self._subscription: Subscription[Any] | None = None
        self._last_stamp = NO_STAMP
        self.rate = Rate()

    @property
    def topic(self) -> str:
        """The topic's name after remapping."""
        return str(self._node.resolve_topic_name(self._name))

    @property
    def is_open(self) -> bool:
        """Whether images are listened to."""
        return self._subscription is not None

    def open(self) -> None:
        """Begin to listen."""
        self.rate = Rate()
        self._subscription = self._node.create_subscription(
            self._message_type, self._name, partial(self._on_image, self.topic), self._quality
        )

    def close(self) -> None:
        """Stop listening, and drop the frame that waits for the worker."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            self._node.destroy_subscription(subscription)
        self._drop_waiting()

    def forget_stamps(self) -> None:
        """Take whatever stamp comes next, and drop the frame that waits for the worker."""
        self._last_stamp = NO_STAMP
        self._drop_waiting()

    def _on_image(self, topic: str, message: Image | CompressedImage) -> None:
        received_at = time.monotonic()
        self._outputs.count("received")
        self.rate.add()
        try:
            check_image(message)
            stamp = stamp_of(message.header.stamp)
        except ImageError as error:
            self._outputs.refuse(topic, "image", str(error))
            return
        except StampRangeError as error:
            self._outputs.refuse(topic, error.kind, str(error))
            return
        if not self._take_stamp(topic, stamp):
            return
        frame = ReceivedFrame(stamp, topic, message, received_at)
        self._received.add(frame)
        if self._worker.offer(frame):
            self._outputs.count("dropped")

    def _take_stamp(self, topic: str, stamp: int) -> bool:
        if stamp == 0:
            self._outputs.refuse(topic, "no stamp", "the image carries no stamp")
            return False
        if stamp == self._last_stamp:
            self._outputs.refuse(topic, "same stamp", f"a second image of stamp {stamp} ns")
            return False
        if stamp < self._last_stamp:
            if self._session.object_ids:
                seconds = (self._last_stamp - stamp) / 1e9
                self._outputs.refuse(
                    topic,
                    "stamp runs backwards",
                    f"the stamp is {seconds:.3f} s before the newest one; call ~/reset to begin "
                    "again with another clock",
                )
                return False
            # Nothing is tracked, so a recording that begins again costs nothing. A frame of the
            # other clock that waits would make the next ones look old.
            self._drop_waiting()
            self._received.clear()
            self._worker.post(partial(self._session.reset, images=False))
        self._last_stamp = stamp
        return True

    def _drop_waiting(self) -> None:
        if self._worker.clear_frame():
            self._outputs.count("dropped")
