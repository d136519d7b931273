# SPDX-License-Identifier: Apache-2.0
"""Pixels and labels of ROS image messages, whichever library decoded the message's fields."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from lazyxmem_ros.images.compressed import check_compressed, decode
from lazyxmem_ros.images.pixels import ImageError, Pixels
from lazyxmem_ros.images.raw import check_raw, raw_label_values, read_raw


def read_image(message: Any, *, max_pixels: int | None = None) -> Pixels:
    """The pixels of a sensor_msgs `Image` or `CompressedImage`, of rclpy or of rosbags.

    Raises ImageError for an empty image, one of more than `max_pixels` (None: MAX_PIXELS), an
    unknown encoding, a row step that does not fit the width, data that is too short or too long,
    and compressed data that does not decode to its end.
    """
    if hasattr(message, "format"):
        return decode(bytes(message.data), message.format, max_pixels)
    return read_raw(message, max_pixels)


def check_image(message: Any, *, max_pixels: int | None = None) -> None:
    """Raises ImageError for what `read_image` would refuse, as far as no pixel need be touched."""
    if hasattr(message, "format"):
        check_compressed(bytes(message.data), message.format, max_pixels)
    else:
        check_raw(message, max_pixels)


def label_values(message: Any, *, max_pixels: int | None = None) -> NDArray[Any]:
    """The values of a label map message, uint8 or uint16 [H, W] as its encoding has it.

    Raises ImageError as `read_image` does. `data.label_maps` says which objects the values mean.
    """
    if hasattr(message, "format"):
        raise ImageError(
            f"a compressed image ({message.format!r}) is no label map: compression may change its "
            "values; publish it as mono8 or mono16"
        )
    return raw_label_values(message, max_pixels)
