# SPDX-License-Identifier: Apache-2.0
"""The tracker's image topic: what comes in is checked, counted, kept, and left for the worker.

Images are kept so that masks, clicks and corrections may name them later, from their receipt on and
whether or not they are ever tracked. What was tracked is in the history of `lazy`, which belongs to
the worker.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.timer import Timer
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from lazyxmem_ros.basics import Labels, StampRangeError, stamp_of, without
from lazyxmem_ros.images import MAX_PIXELS, ImageError, check_image, read_image
from lazyxmem_ros.images.drawing import object_ids_in
from lazyxmem_ros.lazy import PackedLabels
from lazyxmem_ros.nodes.conversions import image_message, time_message
from lazyxmem_ros.nodes.diagnostics import InputRefusedError, Rate
from lazyxmem_ros.nodes.offers import LINGERING_S
from lazyxmem_ros.nodes.running import surviving
from lazyxmem_ros.nodes.timers import create_steady_timer, end_timer
from lazyxmem_ros.nodes.tracker.diagnostics import TrackerMeasures
from lazyxmem_ros.nodes.tracker.image_sources import publisher_names, quality_text, why_no_image
from lazyxmem_ros.nodes.tracker.stamp_order import Order, StampOrder
from lazyxmem_ros.nodes.tracker.worker import Worker

QUEUE_DEPTH = 5
MAX_HEADERS = 10_000
"""Headers that are kept at most, with their images and beyond."""
BEGAN_AGAIN = "stamps began again"
NO_IMAGE_AFTER_S = 5.0
"""Of steady time, after which it is said that no image comes, and why."""
SEVERAL_AFTER_S = LINGERING_S
"""Of steady time, after which it is said that several nodes publish the images."""
LOOK_PERIOD_S = 1.0
TRANSPORTS = {"raw": (Image, "image"), "compressed": (CompressedImage, "image/compressed")}
"""What images come as -> the message type and the topic."""


@dataclass(eq=False)
class ReceivedFrame:
    """One image message on its way through the node.

    stamp: nanoseconds since the epoch. topic: where it came from, for messages. received_at:
    steady time in seconds. published: whether its mask went out. max_pixels: the limit that it has
    passed.
    """

    stamp: int
    topic: str
    message: Image | CompressedImage
    received_at: float
    published: bool = False
    max_pixels: int = MAX_PIXELS
    _labels: Labels | PackedLabels | None = field(default=None, init=False, repr=False)
    _decoding: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _rgb: weakref.ref[NDArray[np.uint8]] | None = field(default=None, init=False, repr=False)

    @property
    def labels(self) -> Labels | None:
        """The label map uint16 [H, W] published for it; None until it was tracked."""
        labels = self._labels
        return labels.unpack() if isinstance(labels, PackedLabels) else labels

    @labels.setter
    def labels(self, labels: Labels) -> None:
        self._labels = labels

    @property
    def is_tracked(self) -> bool:
        """Whether there is a label map."""
        return self._labels is not None

    def pack(self) -> None:
        """Keeps its label map, which is a good deal of its bytes, in few from now on."""
        if isinstance(self._labels, np.ndarray):
            self._labels = PackedLabels.pack(self._labels)

    def correct(self, labels: Labels, corrected: Collection[int]) -> None:
        """Takes a correction's label map for its own. What was left out of that, being probably
        something else, stays so, unless it is one of the objects `corrected`.
        """
        before, packed = self.labels, isinstance(self._labels, PackedLabels)
        if before is not None:
            known = {*object_ids_in(before), *corrected}
            labels = without(labels, [i for i in object_ids_in(labels) if i not in known])
        self.labels = labels
        if packed:
            self.pack()

    @property
    def header(self) -> Header:
        """The message's header: what is published about the frame carries it."""
        return self.message.header

    @property
    def nbytes(self) -> int:
        """Memory that keeping the frame costs, in bytes."""
        labels = self._labels
        return len(self.message.data) + (0 if labels is None else labels.nbytes)

    @property
    def decoded(self) -> NDArray[np.uint8] | None:
        """What `rgb` returned, as long as somebody holds it; else None."""
        return None if self._rgb is None else self._rgb()

    def rgb(self) -> NDArray[np.uint8]:
        """RGB uint8 [H, W, 3], not to be written into. Raises ImageError.

        All who need it at a time share one: it is decoded anew only once nobody holds it any more.
        The frame does not, for many frames are kept. Any thread may call this.
        """
        with self._decoding:
            rgb = self.decoded
            if rgb is None:
                rgb = read_image(self.message, max_pixels=self.max_pixels).rgb()
                self._rgb = weakref.ref(rgb)
            return rgb

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels; a frame that was tracked is not decoded for them.

        Raises ImageError.
        """
        labels = self._labels
        if isinstance(labels, PackedLabels):
            return labels.size
        height, width = (self.rgb() if labels is None else labels).shape[:2]
        return height, width

    def image_message(self, rgb: NDArray[np.uint8] | None = None) -> Image:
        """The frame as an uncompressed message: the one received, where it is one.

        rgb: the image, where it has been decoded. Raises ImageError where it cannot be.
        """
        if hasattr(self.message, "format"):
            return image_message(self.rgb() if rgb is None else rgb, "rgb8", self.header)
        return self.message


def forgotten(stamp: int) -> InputRefusedError:
    """That no recent image has this stamp (ns), for whoever names it."""
    return InputRefusedError(
        "forgotten stamp",
        f"there is no recent frame of stamp {stamp} ns: images can be named for history_time "
        "seconds, as long as history_megabytes holds them",
    )


class ReceivedFrames:
    """The newest images by stamp, up to a limit in bytes and in age, and the newest tracked one.

    The receiving thread and the worker both use it, so it locks.
    """

    def __init__(self, max_bytes: int, max_age: int) -> None:
        """max_age: nanoseconds before the newest frame's stamp."""
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._lock = threading.Lock()
        self._frames: OrderedDict[int, ReceivedFrame] = OrderedDict()
        self._headers: OrderedDict[int, Header] = OrderedDict()
        self._tracked: ReceivedFrame | None = None
        self._older: list[ReceivedFrame] = []

    @property
    def tracked(self) -> ReceivedFrame | None:
        """The newest frame that was tracked; only the worker sets it."""
        return self._tracked

    @tracked.setter
    def tracked(self, frame: ReceivedFrame | None) -> None:
        before, self._tracked = self._tracked, frame
        if before is not None and before is not frame:
            self._older.append(before)

    def pack_older(self) -> None:
        """Pack the label maps of the frames that were tracked before the newest one; for the worker
        to do once that is out, for it takes a moment.
        """
        while self._older:
            self._older.pop().pack()

    @property
    def reach(self) -> int:
        """How far back the frames go from the newest one, nanoseconds."""
        with self._lock:
            return max(self._frames, default=0) - min(self._frames, default=0)

    def add(self, frame: ReceivedFrame) -> None:
        """Keep a frame; the oldest go where a limit is passed, but never this one."""
        with self._lock:
            self._frames[frame.stamp] = frame
            self._headers[frame.stamp] = frame.header
            while len(self._headers) > MAX_HEADERS:
                self._headers.popitem(last=False)
            total = sum(kept.nbytes for kept in self._frames.values())
            while len(self._frames) > 1:
                oldest = next(iter(self._frames.values()))
                young = frame.stamp - oldest.stamp <= self._max_age
                if young and total <= self._max_bytes:
                    return
                del self._frames[oldest.stamp]
                total -= oldest.nbytes

    def set_max_age(self, max_age: int) -> None:
        """Another limit, in nanoseconds, from the next frame on."""
        with self._lock:
            self._max_age = max_age

    def find(self, stamp: int) -> ReceivedFrame | None:
        """The frame of exactly this stamp, if it is still there."""
        tracked = self.tracked
        if tracked is not None and tracked.stamp == stamp:
            return tracked
        with self._lock:
            return self._frames.get(stamp)

    def header(self, stamp: int) -> Header:
        """The header of the image of this stamp, also where that is not kept any more; one with the
        stamp alone where it is not known.
        """
        frame = self.find(stamp)
        with self._lock:
            header = self._headers.get(stamp) if frame is None else frame.header
        return Header(stamp=time_message(stamp)) if header is None else header

    def newest_shown(self) -> ReceivedFrame | None:
        """The newest frame that has a label map: objects may be shown on an older one later."""
        with self._lock:
            shown = (frame for frame in reversed(self._frames.values()) if frame.is_tracked)
            newest = next(shown, None)
        known = [frame for frame in (newest, self.tracked) if frame is not None]
        return max(known, key=lambda frame: frame.stamp, default=None)

    def newest(self) -> ReceivedFrame | None:
        """The frame received last."""
        with self._lock:
            return next(reversed(self._frames.values()), None)

    def clear(self) -> None:
        """Forget every image but the newest tracked one."""
        with self._lock:
            self._frames.clear()
            self._headers.clear()

    def __len__(self) -> int:
        with self._lock:
            return len(self._frames)


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
