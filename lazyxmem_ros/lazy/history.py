# SPDX-License-Identifier: Apache-2.0
"""The last seconds of masks, packed, for corrections that come late."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.correction.base import BoolMask, box_of_mask


@dataclass(frozen=True, eq=False)
class PackedMask:
    """A mask as the bits of its tight box: an eighth of a byte per pixel of the box.

    Attributes:
        box: (x0, y0, x1, y1), half-open pixels; None for an empty mask.
        bits: uint8, the box's pixels in row order, eight to a byte.
    """

    box: tuple[int, int, int, int] | None
    bits: NDArray[np.uint8]

    @classmethod
    def pack(cls, mask: BoolMask) -> PackedMask:
        """Packs a mask bool [H, W]."""
        box = box_of_mask(mask)
        if box is None:
            return cls(None, np.zeros(0, np.uint8))
        x0, y0, x1, y1 = box
        return cls(box, np.packbits(mask[y0:y1, x0:x1]))

    def unpack(self, size: tuple[int, int]) -> BoolMask:
        """The mask, bool [H, W] of `size` (H, W)."""
        mask = np.zeros(size, bool)
        if self.box is not None:
            x0, y0, x1, y1 = self.box
            count = (y1 - y0) * (x1 - x0)
            pixels = np.unpackbits(self.bits, count=count).astype(bool)
            mask[y0:y1, x0:x1] = pixels.reshape(y1 - y0, x1 - x0)
        return mask


@dataclass
class PastFrame:
    """What is kept of a frame.

    Attributes:
        stamp: nanoseconds since the epoch.
        index: its number.
        size: (H, W).
        masks: object id -> its mask as published with the frame.
        applied: (object id, source) -> digest of the correction that was applied to it.
    """

    stamp: int
    index: int
    size: tuple[int, int]
    masks: dict[int, PackedMask]
    applied: dict[tuple[int, str], bytes] = field(default_factory=dict)

    def mask(self, object_id: int) -> BoolMask:
        """An object's mask, bool [H, W]. Raises KeyError if it was not followed then."""
        return self.masks[object_id].unpack(self.size)


class RecentFrames:
    """Past frames by stamp, oldest first, bounded in time and number."""

    def __init__(self, *, max_time: int, max_frames: int) -> None:
        """`max_time` in nanoseconds before the newest frame; `max_frames` at least 1."""
        self._max_time = max_time
        self._max_frames = max_frames
        self._frames: OrderedDict[int, PastFrame] = OrderedDict()

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def newest(self) -> PastFrame | None:
        """The frame added last."""
        return next(reversed(self._frames.values())) if self._frames else None

    @property
    def oldest(self) -> PastFrame | None:
        """The oldest frame that is still kept."""
        return next(iter(self._frames.values())) if self._frames else None

    @property
    def nbytes(self) -> int:
        """Bytes of packed masks."""
        return sum(m.bits.nbytes for frame in self._frames.values() for m in frame.masks.values())

    def find(self, stamp: int) -> PastFrame | None:
        """The frame of that stamp, if it is kept."""
        return self._frames.get(stamp)

    def add(self, frame: PastFrame) -> None:
        """Keeps a frame newer than all before, and forgets those beyond the bounds."""
        self._frames[frame.stamp] = frame
        self._trim()

    def set_bounds(self, *, max_time: int, max_frames: int) -> None:
        """Changes the bounds and forgets what lies beyond them."""
        self._max_time, self._max_frames = max_time, max_frames
        self._trim()

    def clear(self) -> None:
        """Forgets every frame."""
        self._frames.clear()

    def _trim(self) -> None:
        newest = self.newest
        if newest is None:
            return
        while len(self._frames) > 1:
            oldest = next(iter(self._frames.values()))
            young = newest.stamp - oldest.stamp <= self._max_time
            if young and len(self._frames) <= self._max_frames:
                return
            self._frames.popitem(last=False)
