# SPDX-License-Identifier: Apache-2.0
"""Between ROS messages and arrays: images, label maps, masks, boxes, points and stamps.

Reading `rgb8`, `bgr8` and `mono8` copies nothing: the array is a view of the message's own bytes
and keeps them alive. Every other encoding goes through `cv_bridge` where a ROS installation has
it, else through `rosbags-image`; a test holds the two to the same result.
"""

from __future__ import annotations

import array
import enum
import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from lazyxmem_ros.basics import SECOND, BoolMask, Labels
from lazyxmem_ros.extras import missing_extras_explained


class ImageError(ValueError):
    """A message that does not hold the image its fields promise; the text says what is wrong."""


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
            return np.ascontiguousarray(self.data[..., ::-1])
        if self.order is ChannelOrder.MONO:
            return np.repeat(self.data[..., None], 3, axis=2)
        return np.ascontiguousarray(self.data)


_DIRECT = {
    "rgb8": (3, ChannelOrder.RGB),
    "bgr8": (3, ChannelOrder.BGR),
    "mono8": (1, ChannelOrder.MONO),
    # OpenCV's own names say nothing about colour; its convention for them is grey and BGR.
    "8UC1": (1, ChannelOrder.MONO),
    "8UC3": (3, ChannelOrder.BGR),
}

# Bytes per pixel of what the conversion backends turn into rgb8.
_CONVERTED = {
    "rgba8": 4,
    "bgra8": 4,
    "mono16": 2,
    "rgb16": 6,
    "bgr16": 6,
    "rgba16": 8,
    "bgra16": 8,
    "bayer_rggb8": 1,
    "bayer_bggr8": 1,
    "bayer_gbrg8": 1,
    "bayer_grbg8": 1,
    "bayer_rggb16": 2,
    "bayer_bggr16": 2,
    "bayer_gbrg16": 2,
    "bayer_grbg16": 2,
    "yuv422": 2,
    "uyvy": 2,
    "yuv422_yuy2": 2,
    "yuyv": 2,
}
ENCODINGS = (*_DIRECT, *_CONVERTED)

# The two packed YUV layouts carry different names in different ROS releases and in rosbags-image.
_YUV_NAMES = {"uyvy": "yuv422", "yuyv": "yuv422_yuy2"}


def read_image(message: Image | CompressedImage) -> Pixels:
    """The pixels of an `Image` or a `CompressedImage`.

    Raises ImageError for an empty image, an unknown encoding, a row step that does not fit the
    width, data that is too short or too long, and compressed data that does not decode.
    """
    check_image(message)
    if hasattr(message, "format"):
        return _read_compressed(message)
    encoding = message.encoding
    if encoding in _DIRECT:
        channels, order = _DIRECT[encoding]
        shape = (message.height, message.width, channels)
        data: NDArray[np.uint8] = np.ndarray(
            shape, np.uint8, memoryview(message.data), strides=(message.step, channels, 1)
        )
        return Pixels(data[..., 0] if channels == 1 else data, order)
    return Pixels(convert_to_rgb8(message, backend=conversion_backend()), ChannelOrder.RGB)


def check_image(message: Image | CompressedImage) -> None:
    """Raises ImageError for what `read_image` would refuse, as far as no pixel need be touched."""
    if hasattr(message, "format"):
        _check_compressed(message)
    elif message.encoding in _DIRECT:
        _rows(message, bytes_per_pixel=_DIRECT[message.encoding][0])
    elif message.encoding in _CONVERTED:
        _rows(message, bytes_per_pixel=_CONVERTED[message.encoding])
    else:
        raise ImageError(
            f"encoding {message.encoding!r} is not a colour or grey image this node reads; "
            f"known are {', '.join(ENCODINGS)}"
        )


@lru_cache(maxsize=1)
def conversion_backend() -> str:
    """`cv_bridge` where a ROS installation has it, else `rosbags_image`."""
    return "cv_bridge" if importlib.util.find_spec("cv_bridge") else "rosbags_image"


def convert_to_rgb8(message: Image, *, backend: str) -> NDArray[np.uint8]:
    """One of the encodings that are not read in place, as a new RGB uint8 [H, W, 3] array.

    Raises ImageError where the fields contradict each other or the backend cannot convert.
    """
    packed = _without_row_padding(message, _CONVERTED[message.encoding])
    try:
        if backend == "cv_bridge":
            return _cv_bridge_rgb8(packed)
        return _rosbags_image_rgb8(packed)
    except Exception as error:  # each backend has its own kind, and OpenCV a third
        raise ImageError(f"{message.encoding} could not be converted to rgb8: {error}") from error


def _cv_bridge_rgb8(message: Image) -> NDArray[np.uint8]:
    from cv_bridge import CvBridge

    return np.asarray(CvBridge().imgmsg_to_cv2(message, desired_encoding="rgb8"))


def _rosbags_image_rgb8(message: Image) -> NDArray[np.uint8]:
    with missing_extras_explained():
        from rosbags.image import image_to_cvimage

    # Any object with the fields will do for rosbags-image; its types are those of its own store.
    source: Any = message
    return np.asarray(image_to_cvimage(source, "rgb8"))


def _check_compressed(message: CompressedImage) -> None:
    if len(message.data) == 0:
        raise ImageError("the compressed image is empty")
    if "compressedDepth" in message.format:
        raise ImageError(f"format {message.format!r} is a depth image, not a colour or grey one")


def _read_compressed(message: CompressedImage) -> Pixels:
    data = np.frombuffer(message.data, np.uint8)
    try:
        # Both backends decode with this very call; without the flag a JPEG's EXIF would turn it.
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        decoded = cv2.imdecode(data, flags)
    except cv2.error as error:
        raise ImageError(f"format {message.format!r} did not decode: {error}") from error
    if decoded is None:
        raise ImageError(
            f"{data.size} bytes of format {message.format!r} did not decode: "
            "neither JPEG, PNG nor another format OpenCV reads, or cut short"
        )
    return Pixels(np.asarray(decoded, np.uint8), ChannelOrder.BGR)


def _rows(message: Image, *, bytes_per_pixel: int) -> memoryview:
    """The message's bytes, once its fields are known to agree with one another."""
    height, width, step, length = message.height, message.width, message.step, len(message.data)
    if height == 0 or width == 0:
        raise ImageError(f"the image is empty: {width}x{height} pixels")
    row_bytes = width * bytes_per_pixel
    if step < row_bytes:
        raise ImageError(
            f"row step {step} is too small: {width} pixels of {message.encoding} "
            f"take {row_bytes} bytes"
        )
    if length != step * height:
        fault = "short" if length < step * height else "long"
        raise ImageError(
            f"the data is too {fault}: {length} bytes, but step {step} x height {height} "
            f"is {step * height}"
        )
    return memoryview(message.data)


def _without_row_padding(message: Image, bytes_per_pixel: int) -> Image:
    """The same image with step = width x bytes per pixel, under the name both backends know."""
    rows = _rows(message, bytes_per_pixel=bytes_per_pixel)
    encoding = _YUV_NAMES.get(message.encoding, message.encoding)
    row_bytes = message.width * bytes_per_pixel
    if message.step == row_bytes and encoding == message.encoding:
        return message
    padded = np.frombuffer(rows, np.uint8).reshape(message.height, message.step)
    return Image(
        header=message.header,
        height=message.height,
        width=message.width,
        encoding=encoding,
        is_bigendian=message.is_bigendian,
        step=row_bytes,
        data=_byte_array(padded[:, :row_bytes]),
    )


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


_LABEL_TYPES = {"mono8": "u1", "8UC1": "u1", "mono16": "u2", "16UC1": "u2"}


def read_labels(message: Image) -> Labels:
    """A label map as uint16 [H, W]; 0 is background, other values are object ids.

    Accepts mono8 and mono16 (and OpenCV's names for the same). Raises ImageError as `read_image`.
    """
    if message.encoding not in _LABEL_TYPES:
        raise ImageError(
            f"encoding {message.encoding!r} is not one of a label map; "
            f"known are {', '.join(_LABEL_TYPES)}"
        )
    order = ">" if message.is_bigendian else "<"
    dtype = np.dtype(order + _LABEL_TYPES[message.encoding])
    rows = _rows(message, bytes_per_pixel=dtype.itemsize)
    shape = (message.height, message.width)
    view: NDArray[Any] = np.ndarray(shape, dtype, rows, strides=(message.step, dtype.itemsize))
    return view.astype(np.uint16)


def read_mask(message: Image) -> BoolMask:
    """A binary mask as bool [H, W]: true where the message is not zero. Raises ImageError."""
    mask: BoolMask = read_labels(message) != 0
    return mask


def is_empty(message: Image) -> bool:
    """Whether an optional image was left out: no rows, no columns and no data."""
    return message.height == 0 and message.width == 0 and len(message.data) == 0


def labels_message(labels: Labels, header: Header) -> Image:
    """A label map uint16 [H, W] as mono8, or as mono16 where an id needs it."""
    if labels.size and int(labels.max()) > np.iinfo(np.uint8).max:
        return image_message(labels.astype("<u2"), "mono16", header)
    return image_message(labels.astype(np.uint8), "mono8", header)


def mask_message(mask: BoolMask, header: Header) -> Image:
    """A mask bool [H, W] as mono8, 0 and 255."""
    return image_message(np.where(mask, np.uint8(255), np.uint8(0)), "mono8", header)


def masks_of_labels(labels: Labels) -> dict[int, BoolMask]:
    """Object id -> mask bool [H, W] for every non-zero value of a label map."""
    return {int(value): labels == value for value in np.unique(labels) if value != 0}


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
    """Nanoseconds since the epoch as a ROS time."""
    seconds, nanoseconds = divmod(stamp, SECOND)
    return Time(sec=seconds, nanosec=nanoseconds)
