# SPDX-License-Identifier: Apache-2.0
"""A decoded image, its limit in size, and how 16 bits become 8."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_PIXELS = 1 << 26
"""Larger images are refused before they are decoded: 67 megapixels, or 8192 x 8192. A few hundred
bytes can claim to be any size."""

SCALE_16_TO_8 = 1 / 257
"""65535 becomes 255."""
CONTENT_PERCENTILES = (0.1, 99.9)
"""Where a grey image's content begins and ends: a few dead pixels say nothing."""
FULL_RANGE = 1 << 14
"""Content of 16 bits that spans so many values or more is taken as it is."""
FLAT_RANGE = 16
"""Content that spans fewer values is taken as it is, too: it is noise."""
SAMPLED_PIXELS = 1 << 16
"""About so many pixels are looked at to find the content's range."""


class ImageError(ValueError):
    """Bytes that do not hold the image they promise, or none; the text says what is wrong."""


class ChannelOrder(enum.Enum):
    """How the last axis of a pixel array is to be read."""

    RGB = "rgb"
    BGR = "bgr"
    MONO = "mono"


@dataclass(frozen=True)
class Pixels:
    """An image as it came, before anybody paid for a colour conversion.

    `data` is uint8, [H, W, 3] for RGB and BGR and [H, W] for MONO; it may be a strided, read-only
    view of the message it came from.
    """

    data: NDArray[np.uint8]
    order: ChannelOrder

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return (self.data.shape[0], self.data.shape[1])

    def rgb(self) -> NDArray[np.uint8]:
        """The image as contiguous RGB uint8 [H, W, 3]: the one place where channels are moved."""
        if self.order is ChannelOrder.BGR:
            return np.asarray(cv2.cvtColor(self.data, cv2.COLOR_BGR2RGB), np.uint8)
        if self.order is ChannelOrder.MONO:
            return np.repeat(self.data[..., None], 3, axis=2)
        return np.ascontiguousarray(self.data)


def check_size(width: int, height: int, max_pixels: int | None) -> None:
    """Raise ImageError for an image without pixels, and for one of more than `max_pixels`.

    None: MAX_PIXELS, where there is no parameter of that name.
    """
    if width == 0 or height == 0:
        raise ImageError(f"the image is empty: {width}x{height} pixels")
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    if width * height > limit:
        raise ImageError(
            f"the image claims {width}x{height} pixels, {width * height} in all; up to {limit} are "
            + ("read; scale it down, masks and all" if max_pixels is None else "read (max_pixels)")
        )


def eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Colours of 16 bits, uint16 [H, W, C], as uint8: 65535 becomes 255."""
    return np.asarray(cv2.convertScaleAbs(np.ascontiguousarray(values), alpha=SCALE_16_TO_8))


def grey_eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """A grey image of 16 bits, uint16 [H, W], as uint8.

    65535 becomes 255 where the content uses the 16 bits. A thermal camera, or one of 10 to 14
    bits, uses a part of them: content that spans fewer than FULL_RANGE values is stretched to
    0..255, frame by frame, from the lowest to the highest of CONTENT_PERCENTILES.
    """
    low, high = _content_range(values)
    if not FLAT_RANGE <= high - low < FULL_RANGE:
        return eight_bits(values)
    scale = 255 / (high - low)
    stretched = values.astype(np.float32) * scale - low * scale
    return np.rint(np.clip(stretched, 0, 255)).astype(np.uint8)


def _content_range(values: NDArray[Any]) -> tuple[float, float]:
    step = max(1, int((values.size / SAMPLED_PIXELS) ** 0.5))
    low, high = np.percentile(values[::step, ::step], CONTENT_PERCENTILES)
    return float(low), float(high)
