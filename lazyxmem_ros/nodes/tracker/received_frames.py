# SPDX-License-Identifier: Apache-2.0
"""The images that the tracker has received.

They are kept so that masks, clicks and corrections may name them later, from their receipt on and
whether or not they are ever tracked.

What was tracked is in the history of `lazy`, which belongs to the worker.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from lazyxmem_ros.basics import Labels, without
from lazyxmem_ros.images import MAX_PIXELS, read_image
from lazyxmem_ros.images.drawing import object_ids_in
from lazyxmem_ros.lazy import PackedLabels
from lazyxmem_ros.nodes.conversions import image_message, time_message
from lazyxmem_ros.nodes.diagnostics import InputRefusedError

MAX_HEADERS = 10_000
"""Headers that are kept at most, with their images and beyond."""


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
