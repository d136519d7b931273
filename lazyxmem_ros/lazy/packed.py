# SPDX-License-Identifier: Apache-2.0
"""Masks and label maps as the bits of their boxes, for the many frames that are kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.basics import BoolMask, Labels
from lazyxmem_ros.correction.base import box_of_mask
from lazyxmem_ros.images.drawing import object_ids_in


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


@dataclass(frozen=True, eq=False)
class PackedLabels:
    """A label map as one packed mask for each of its objects.

    Attributes:
        size: (H, W).
        masks: object id -> its mask, none overlapping another.
    """

    size: tuple[int, int]
    masks: dict[int, PackedMask]

    @classmethod
    def pack(cls, labels: Labels) -> PackedLabels:
        """Packs a label map uint16 [H, W]."""
        height, width = labels.shape
        masks = {i: PackedMask.pack(labels == i) for i in object_ids_in(labels)}
        return cls((height, width), masks)

    def unpack(self) -> Labels:
        """The label map, uint16 [H, W]."""
        labels = np.zeros(self.size, np.uint16)
        for object_id, mask in self.masks.items():
            labels[mask.unpack(self.size)] = object_id
        return labels

    @property
    def nbytes(self) -> int:
        """Bytes of its bits."""
        return sum(mask.bits.nbytes for mask in self.masks.values())
