# SPDX-License-Identifier: Apache-2.0
"""Images as they were received, and masks of images that have yet to come.

Images are kept so that masks, clicks and corrections may name them later, from their receipt on and
whether or not they are ever tracked. What was tracked is in the history of `lazy`, which belongs to
the worker.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from lazyxmem_ros.basics import BoolMask, Labels
from lazyxmem_ros.images import MAX_PIXELS, read_image
from lazyxmem_ros.nodes.conversions import image_message

MAX_EARLY_MASKS = 8
"""Masks that may wait for their frames."""


@dataclass(eq=False)
class ReceivedFrame:
    """One image message on its way through the node.

    stamp: nanoseconds since the epoch. topic: where it came from, for messages. received_at:
    steady time in seconds. labels: the label map uint16 [H, W] published for it, None until
    then. published: whether its mask went out. max_pixels: the limit that it has passed.
    """

    stamp: int
    topic: str
    message: Image | CompressedImage
    received_at: float
    labels: Labels | None = field(default=None, repr=False)
    published: bool = False
    max_pixels: int = MAX_PIXELS

    @property
    def header(self) -> Header:
        """The message's header: what is published about the frame carries it."""
        return self.message.header

    @property
    def nbytes(self) -> int:
        """Memory that keeping the frame costs, in bytes."""
        return len(self.message.data) + (0 if self.labels is None else self.labels.nbytes)

    def rgb(self) -> NDArray[np.uint8]:
        """RGB uint8 [H, W, 3]; decoded anew at each call. Raises ImageError."""
        return read_image(self.message, max_pixels=self.max_pixels).rgb()

    def image_message(self, rgb: NDArray[np.uint8] | None = None) -> Image:
        """The frame as an uncompressed message: the one received, where it is one.

        rgb: the image, where it has been decoded. Raises ImageError where it cannot be.
        """
        if hasattr(self.message, "format"):
            return image_message(self.rgb() if rgb is None else rgb, "rgb8", self.header)
        return self.message


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
        self.tracked: ReceivedFrame | None = None
        """The newest frame that was tracked; only the worker sets it."""

    def add(self, frame: ReceivedFrame) -> None:
        """Keep a frame; the oldest go where a limit is passed, but never this one."""
        with self._lock:
            self._frames[frame.stamp] = frame
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

    def newest(self) -> ReceivedFrame | None:
        """The frame received last."""
        with self._lock:
            return next(reversed(self._frames.values()), None)

    def clear(self) -> None:
        """Forget every image but the newest tracked one."""
        with self._lock:
            self._frames.clear()

    def __len__(self) -> int:
        with self._lock:
            return len(self._frames)


@dataclass(frozen=True, eq=False)
class GivenMasks:
    """Masks {id: bool [H, W]} shown on the frame of `stamp` (ns), with texts {id: label}.

    topic: where they came from, for messages.
    """

    stamp: int
    masks: Mapping[int, BoolMask]
    labels: Mapping[int, str] = field(default_factory=dict)
    topic: str = ""


class EarlyMasks:
    """Masks that were shown on frames which have yet to arrive: the newest MAX_EARLY_MASKS."""

    def __init__(self, refuse: Callable[[str, str, str], None]) -> None:
        """refuse(topic, kind, fault): counts and reports masks that are dropped."""
        self._refuse = refuse
        self._early: list[GivenMasks] = []

    def keep(self, given: GivenMasks) -> None:
        """Keep masks; newer ones of the same objects and frame take the place of older ones, and
        the oldest are dropped where there are too many.
        """
        same = (given.stamp, given.masks.keys())
        self._early = [kept for kept in self._early if (kept.stamp, kept.masks.keys()) != same]
        if len(self._early) >= MAX_EARLY_MASKS:
            self.drop(self._early.pop(0))
        self._early.append(given)

    def due(self, stamp: int) -> list[tuple[int, list[GivenMasks]]]:
        """Takes those of the frames up to `stamp` (ns), by their frames' stamps, oldest first."""
        due = sorted((g for g in self._early if g.stamp <= stamp), key=attrgetter("stamp"))
        self._early = [given for given in self._early if given.stamp > stamp]
        return [(wanted, list(same)) for wanted, same in groupby(due, key=attrgetter("stamp"))]

    def drop(self, given: GivenMasks) -> None:
        """Report masks as dropped for want of their frame."""
        self._refuse(
            given.topic,
            "frame never came",
            f"the frame of stamp {given.stamp} ns did not arrive in time; its masks are dropped",
        )

    def clear(self) -> None:
        """Forget them all."""
        self._early.clear()
