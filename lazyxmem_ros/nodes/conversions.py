# SPDX-License-Identifier: Apache-2.0
"""Between ROS messages and arrays: images, label maps, masks, boxes, points and stamps.

Pixels are read by `lazyxmem_ros.images`, and label maps mean what `data.label_maps` says, as they
do in bags and files.
"""

from __future__ import annotations

import array
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from sensor_msgs.msg import Image, RegionOfInterest
from std_msgs.msg import Header

from lazyxmem_ros.basics import BoolMask, Labels, stamp_fields
from lazyxmem_ros.data.errors import LabelMapError
from lazyxmem_ros.data.label_maps import MAX_OBJECTS, VOID, is_binary, object_ids
from lazyxmem_ros.images import MAX_PIXELS, ImageError, label_values
from lazyxmem_ros.images.drawing import object_ids_in


def _byte_array(values: NDArray[Any]) -> array.array[int]:
    """The bytes of an array, as the type that a message field takes without looking at each one.

    That makes 0.3 ms of tens of milliseconds for an image.
    """
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(values).data.cast("B"))
    return data


def image_message(values: NDArray[Any], encoding: str, header: Header) -> Image:
    """A contiguous image message of [H, W] or [H, W, C] values, little-endian.

    The caller vouches that dtype and channels are the encoding's.
    """
    values = np.ascontiguousarray(values)
    height, width = values.shape[:2]
    return Image(
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=values.nbytes // height if height else 0,
        data=_byte_array(values) if values.size else array.array("B"),
    )


def read_labels(message: Image, *, max_pixels: int = MAX_PIXELS) -> Labels:
    """A label map's values as uint16 [H, W]; 0 is background.

    Accepts mono8 and mono16 (and OpenCV's names for the same). Raises ImageError as `read_image`.
    """
    return label_values(message, max_pixels=max_pixels).astype(np.uint16)


def read_object_masks(
    message: Image, *, max_objects: int = MAX_OBJECTS, max_pixels: int = MAX_PIXELS
) -> dict[int, BoolMask]:
    """Object id -> mask bool [H, W] of a label map that a person or another program made.

    `data.label_maps` says what its values mean: a black and white one is object 1, and beside
    other ids of 8 bits 255 is nothing. Raises ImageError as `read_labels`, and for more than
    `max_objects` objects.
    """
    values = label_values(message, max_pixels=max_pixels)
    try:
        labels = object_ids(values, binary=is_binary(values), max_objects=max_objects)
    except LabelMapError as error:
        raise ImageError(str(error)) from error
    return masks_of_labels(labels)


def read_mask(message: Image, image_size: tuple[int, int] = (0, 0)) -> BoolMask:
    """A binary mask as bool [H, W]: true where the message is not zero. Raises ImageError.

    image_size: (H, W) of its image, which was let in: its mask may be as large.
    """
    height, width = image_size
    mask: BoolMask = label_values(message, max_pixels=max(MAX_PIXELS, height * width)) != 0
    return mask


def is_empty(message: Image) -> bool:
    """Whether an optional image was left out: no rows, no columns and no data."""
    return message.height == 0 and message.width == 0 and len(message.data) == 0


def labels_message(labels: Labels, header: Header, *, largest_id: int = 0) -> Image:
    """A label map uint16 [H, W] as mono8, or as mono16 where an id of it or `largest_id` needs it.

    255 does, which marks nothing in a label map of 8 bits (see `data.label_maps`).

    largest_id: of all objects that are followed, so that the encoding is the same whichever of
    them are in view.
    """
    shown = int(labels.max()) if labels.size else 0
    if max(shown, largest_id) >= VOID:
        return image_message(labels.astype("<u2"), "mono16", header)
    return image_message(labels.astype(np.uint8), "mono8", header)


def mask_message(mask: BoolMask, header: Header) -> Image:
    """A mask bool [H, W] as mono8, 0 and 255."""
    return image_message(np.where(mask, np.uint8(255), np.uint8(0)), "mono8", header)


def masks_of_labels(labels: Labels) -> dict[int, BoolMask]:
    """Object id -> mask bool [H, W] for every non-zero value of a label map."""
    return {object_id: labels == object_id for object_id in object_ids_in(labels)}


def region_message(box: tuple[int, int, int, int] | None) -> RegionOfInterest:
    """A half-open pixel box (x0, y0, x1, y1) as a RegionOfInterest; None gives the empty one."""
    if box is None:
        return RegionOfInterest()
    x0, y0, x1, y1 = (int(value) for value in box)
    return RegionOfInterest(x_offset=x0, y_offset=y0, width=x1 - x0, height=y1 - y0)


def read_region(region: RegionOfInterest) -> tuple[int, int, int, int]:
    """A RegionOfInterest as the half-open pixel box (x0, y0, x1, y1)."""
    x0, y0 = region.x_offset, region.y_offset
    return (x0, y0, x0 + region.width, y0 + region.height)


def point_messages(points: NDArray[np.float32]) -> list[Point]:
    """Pixel positions [P, 2] (x, y) as points with z = 0."""
    return [Point(x=float(x), y=float(y), z=0.0) for x, y in points]


def read_points(points: list[Point]) -> NDArray[np.float32]:
    """Points as pixel positions float32 [P, 2] (x, y)."""
    return np.array([(point.x, point.y) for point in points], np.float32).reshape(-1, 2)


def time_message(stamp: int) -> Time:
    """Nanoseconds since the epoch as a ROS time; raises StampRangeError beyond 1970 to 2038."""
    sec, nanosec = stamp_fields(stamp)
    return Time(sec=sec, nanosec=nanosec)
