# SPDX-License-Identifier: Apache-2.0
"""The tracker's image topic: what comes in is checked, counted, kept, and left for the worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.timer import Timer
from sensor_msgs.msg import CompressedImage, Image

from lazyxmem_ros.basics import StampRangeError, stamp_of
from lazyxmem_ros.images import ImageError, check_image
from lazyxmem_ros.nodes.diagnostics import Rate
from lazyxmem_ros.nodes.offers import LINGERING_S
from lazyxmem_ros.nodes.running import surviving
from lazyxmem_ros.nodes.timers import create_steady_timer, end_timer
from lazyxmem_ros.nodes.tracker.diagnostics import TrackerMeasures
from lazyxmem_ros.nodes.tracker.image_sources import publisher_names, quality_text, why_no_image
from lazyxmem_ros.nodes.tracker.received_frames import ReceivedFrame, ReceivedFrames
from lazyxmem_ros.nodes.tracker.stamp_order import Order, StampOrder
from lazyxmem_ros.nodes.tracker.worker import Worker

QUEUE_DEPTH = 5
BEGAN_AGAIN = "stamps began again"
NO_IMAGE_AFTER_S = 5.0
"""Of steady time, after which it is said that no image comes, and why."""
SEVERAL_AFTER_S = LINGERING_S
"""Of steady time, after which it is said that several nodes publish the images."""
LOOK_PERIOD_S = 1.0
TRANSPORTS = {"raw": (Image, "image"), "compressed": (CompressedImage, "image/compressed")}
"""What images come as -> the message type and the topic."""


class QualityOverrides:
    """`qos_overrides.*` of the image topics, which users give as for any node.

    As parameters they outlive a configuration: one that nobody gave must not hold the next
    configuration to the reliability of the first.
    """

    def __init__(self) -> None:
        self._not_given: set[str] = set()

    def subscribe(
        self, node: Node, message_type: Any, topic: str, callback: Any, quality: QoSProfile
    ) -> Subscription[Any]:
        """Subscribe with what users give; raises whatever rclpy has for nonsense."""
        kinds = [QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY]
        if topic in self._not_given:
            kinds.remove(QoSPolicyKind.RELIABILITY)
        used = copy(quality)
        subscription = node.create_subscription(
            message_type,
            topic,
            callback,
            used,
            qos_overriding_options=QoSOverridingOptions(kinds),
        )
        if used.reliability == quality.reliability:
            self._not_given.add(topic)
        return subscription


class ImageInput:
    """Subscribes to `image` or `image/compressed`; the newest frame goes to the worker.

    Only to one of them: drivers offer a camera's images as both, and encode the compressed ones
    for as long as somebody listens.
    """

    def __init__(
        self,
        node: Node,
        worker: Worker[ReceivedFrame],
        received: ReceivedFrames,
        measures: TrackerMeasures,
        *,
        is_tracking: Callable[[], bool],
        on_new_clock: Callable[[], object],
        transport: str,
        reliable: bool,
        max_pixels: int,
        overrides: QualityOverrides,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """Raises counts `received` and `dropped`; `rate` is that of what was received.

        is_tracking: whether there are objects, or are to be. on_new_clock: runs in the worker
        where stamps begin again.

        transport: one of TRANSPORTS. reliable: unless `overrides` say otherwise. max_pixels: of an
        image, more are refused. on_failure: gets what goes wrong and is no refusal.
        """
        self._node = node
        self._worker = worker
        self._received = received
        self._measures = measures
        self._is_tracking = is_tracking
        self._on_new_clock = on_new_clock
        self._max_pixels = max_pixels
        self._overrides = overrides
        self._on_failure = on_failure
        self._message_type, self._name = TRANSPORTS[transport]
        [self._other_name] = (name for _, name in TRANSPORTS.values() if name != self._name)
        self._quality = QoSProfile(
            depth=QUEUE_DEPTH,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        )
        self._subscription: Subscription[Any] | None = None
        self._order = StampOrder()
        self._last_received = 0.0
        self._look_timer: Timer | None = None
        self._said = False
        self._single_at = 0.0
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
        """Begin to listen. Raises whatever rclpy has for bad `qos_overrides`."""
        self.rate = Rate()
        receive = surviving(partial(self._on_image, self.topic), self._on_failure)
        self._subscription = self._overrides.subscribe(
            self._node, self._message_type, self._name, receive, self._quality
        )
        self._last_received = self._single_at = time.monotonic()
        self._said = False
        self._look_timer = create_steady_timer(self._node, LOOK_PERIOD_S, self._look)

    def close(self) -> None:
        """Stop listening, and drop the frame that waits for the worker."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            self._node.destroy_subscription(subscription)
        timer, self._look_timer = self._look_timer, None
        if timer is not None:
            end_timer(self._node, timer)
        self._drop_waiting()

    def fault(self) -> str:
        """What is wrong with how images come, in words; "" where nothing is: that there are none
        for NO_IMAGE_AFTER_S, and why, or that they have come of several nodes for SEVERAL_AFTER_S.
        """
        subscription = self._subscription
        if subscription is None:
            return ""
        if not self._is_silent():
            return self._several() if self._is_crowded() else ""
        quality = subscription.qos_profile
        why = why_no_image(
            self._node,
            self.topic,
            self._type_name,
            quality,
            other_topic=self._node.resolve_topic_name(self._other_name),
        )
        return (
            f"no image for {time.monotonic() - self._last_received:.0f} s on {self.topic} "
            f"({self._type_name}, {quality_text(quality)}): {why}"
        )

    def _is_silent(self) -> bool:
        return time.monotonic() - self._last_received >= NO_IMAGE_AFTER_S

    def _is_crowded(self) -> bool:
        return time.monotonic() - self._single_at >= SEVERAL_AFTER_S

    def _several(self) -> str:
        """That several nodes publish the images, in words; "" where it is one."""
        names = publisher_names(self._node, self.topic, self._type_name)
        if len(names) < 2:
            return ""
        return (
            f"{self.topic} is published by {' and '.join(names)}: their images are tracked as if "
            "they were one camera's; end one, or remap it"
        )

    def _look(self) -> None:
        """Says what is wrong once, until it is right again."""
        if not self._several():
            self._single_at = time.monotonic()
        if not (self._is_silent() or self._is_crowded()):
            self._said = False
        elif not self._said:
            text = self.fault()
            self._said = bool(text)
            if text:
                self._node.get_logger().warning(text)

    @property
    def _type_name(self) -> str:
        return f"sensor_msgs/msg/{self._message_type.__name__}"

    def forget_stamps(self) -> None:
        """Take whatever stamp comes next, and drop the frame that waits for the worker."""
        self._order.forget()
        self._drop_waiting()

    def _on_image(self, topic: str, message: Image | CompressedImage) -> None:
        received_at = self._last_received = time.monotonic()
        self._measures.count("received")
        self.rate.add()
        try:
            check_image(message, max_pixels=self._max_pixels)
            stamp = stamp_of(message.header.stamp)
        except ImageError as error:
            self._measures.refuse(topic, "image", str(error))
            return
        except StampRangeError as error:
            self._measures.refuse(topic, error.kind, str(error))
            return
        if not self._take_stamp(topic, stamp):
            return
        frame = ReceivedFrame(stamp, topic, message, received_at, max_pixels=self._max_pixels)
        self._received.add(frame)
        if self._worker.offer(frame):
            self._measures.count("dropped")

    def _take_stamp(self, topic: str, stamp: int) -> bool:
        if stamp == 0:
            self._measures.refuse(topic, "no stamp", "the image carries no stamp")
            return False
        tracking = self._is_tracking()
        judged = self._order.judge(stamp, tracking=tracking)
        if judged.order is Order.REFUSED:
            self._measures.refuse(topic, judged.kind, judged.text)
            return False
        if judged.order is Order.GONE_BACK:
            self._begin_again()
        if judged.order is not Order.TAKEN and tracking:
            self._node.get_logger().warning(
                f"{topic}: another clock is followed, whose stamps are {judged.text}; the objects "
                "are kept"
            )
        return True

    def _begin_again(self) -> None:
        """Stamps begin again: nothing of the other clock's time can be meant from now on."""
        # A frame of the other clock that waits would make the next ones look old.
        self._drop_waiting()
        self._received.clear()
        self._worker.drop_work(BEGAN_AGAIN)
        self._worker.post(self._on_new_clock)

    def _drop_waiting(self) -> None:
        if self._worker.clear_frame():
            self._measures.count("dropped")
