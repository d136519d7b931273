# SPDX-License-Identifier: Apache-2.0
"""Pixels of raw images: every encoding of sensor_msgs/Image that is a colour or grey image.

`rgb8`, `bgr8`, `mono8` and OpenCV's names for them are views of the message's own bytes, which
they keep alive. Every other encoding is converted by OpenCV. OpenCV's own names (8UC3 ...) say
nothing about colour; its convention for them is grey, BGR and BGRA. YUV is that of video: BT.601,
16 is black and 235 white.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.images.pixels import (
    ChannelOrder,
    ImageError,
    Pixels,
    check_size,
    eight_bits,
    grey_eight_bits,
)


class RawImage(Protocol):
    """The fields of a sensor_msgs/Image, of rclpy or of rosbags."""

    height: int
    width: int
    encoding: str
    is_bigendian: Any
    step: int
    data: Any


class _Packed(NamedTuple):
    """Pixels that lie side by side: bytes per value, values per pixel, OpenCV's code to RGB."""

    depth: int
    channels: int
    code: int | None

    @property
    def pixel_bytes(self) -> int:
        return self.depth * self.channels


class _Planar(NamedTuple):
    """Planes of YUV: rows of all planes per row of the image, and how they become RGB.

    code: OpenCV's, None for 4:4:4. separate: U and V are planes of their own. swapped: V first.
    """

    rows: float
    code: int | None
    separate: bool = False
    swapped: bool = False


DIRECT = {
    "rgb8": (3, ChannelOrder.RGB),
    "bgr8": (3, ChannelOrder.BGR),
    "mono8": (1, ChannelOrder.MONO),
    "8UC1": (1, ChannelOrder.MONO),
    "8UC3": (3, ChannelOrder.BGR),
}

# OpenCV names a Bayer pattern by the second row's second and third pixel.
BAYER_CODES = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}

PACKED = {
    "rgba8": _Packed(1, 4, cv2.COLOR_RGBA2RGB),
    "bgra8": _Packed(1, 4, cv2.COLOR_BGRA2RGB),
    "8UC4": _Packed(1, 4, cv2.COLOR_BGRA2RGB),
    "mono16": _Packed(2, 1, None),
    "16UC1": _Packed(2, 1, None),
    "rgb16": _Packed(2, 3, None),
    "bgr16": _Packed(2, 3, cv2.COLOR_BGR2RGB),
    "16UC3": _Packed(2, 3, cv2.COLOR_BGR2RGB),
    "rgba16": _Packed(2, 4, cv2.COLOR_RGBA2RGB),
    "bgra16": _Packed(2, 4, cv2.COLOR_BGRA2RGB),
    "16UC4": _Packed(2, 4, cv2.COLOR_BGRA2RGB),
    **{f"bayer_{name}8": _Packed(1, 1, code) for name, code in BAYER_CODES.items()},
    **{f"bayer_{name}16": _Packed(2, 1, code) for name, code in BAYER_CODES.items()},
    # The two packed YUV layouts carry different names in different ROS releases.
    "yuv422": _Packed(1, 2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": _Packed(1, 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": _Packed(1, 2, cv2.COLOR_YUV2RGB_YUYV),
    "yuyv": _Packed(1, 2, cv2.COLOR_YUV2RGB_YUYV),
}

PLANAR = {
    "nv12": _Planar(1.5, cv2.COLOR_YUV2RGB_NV12),
    "nv21": _Planar(1.5, cv2.COLOR_YUV2RGB_NV21),
    "yuv420": _Planar(1.5, cv2.COLOR_YUV2RGB_I420, separate=True),
    "i420": _Planar(1.5, cv2.COLOR_YUV2RGB_I420, separate=True),
    "yv12": _Planar(1.5, cv2.COLOR_YUV2RGB_YV12, separate=True),
    "nv24": _Planar(3, None),
    "nv42": _Planar(3, None, swapped=True),
}

ENCODINGS = (*DIRECT, *PACKED, *PLANAR)

LABEL_DEPTHS = {"mono8": 1, "8UC1": 1, "mono16": 2, "16UC1": 2}
"""Encodings of a label map -> bytes per pixel."""

# BT.601: (Y - 16, U - 128, V - 128) to RGB.
_YUV_OFFSET = np.array([16, 128, 128], np.float32)
_YUV_TO_RGB = np.array(
    [[1.164383, 0, 1.596027], [1.164383, -0.391762, -0.812968], [1.164383, 2.017232, 0]], np.float32
)


def check_raw(message: RawImage, max_pixels: int | None) -> None:
    """Raise ImageError where the fields contradict each other or name no image that is read."""
    encoding = message.encoding
    if encoding not in ENCODINGS:
        raise ImageError(
            f"encoding {encoding!r} is not a colour or grey image that is read; "
            f"known are {', '.join(ENCODINGS)}"
        )
    check_size(message.width, message.height, max_pixels)
    if encoding in PLANAR:
        _luma_step(message)
    else:
        direct = encoding in DIRECT
        _check_rows(message, DIRECT[encoding][0] if direct else PACKED[encoding].pixel_bytes)


def read_raw(message: RawImage, max_pixels: int | None) -> Pixels:
    """The pixels of a raw image; raises ImageError as `check_raw` does."""
    check_raw(message, max_pixels)
    encoding = message.encoding
    if encoding in DIRECT:
        channels, order = DIRECT[encoding]
        shape = (message.height, message.width, channels)
        strides = (message.step, channels, 1)
        data: NDArray[np.uint8] = np.ndarray(shape, np.uint8, _bytes(message), strides=strides)
        return Pixels(data[..., 0] if channels == 1 else data, order)
    try:
        if encoding in PLANAR:
            return Pixels(_from_planes(message), ChannelOrder.RGB)
        return _from_packed(message)
    except cv2.error as error:
        raise ImageError(
            f"{encoding} of {message.width}x{message.height} pixels could not be converted: "
            f"{error.err or error}"
        ) from error


def raw_label_values(message: RawImage, max_pixels: int | None) -> NDArray[Any]:
    """The values of a label map, uint8 or uint16 [H, W], as a new array; raises ImageError."""
    encoding = message.encoding
    if encoding not in LABEL_DEPTHS:
        raise ImageError(
            f"encoding {encoding!r} is not one of a label map; known are {', '.join(LABEL_DEPTHS)}"
        )
    check_size(message.width, message.height, max_pixels)
    depth = LABEL_DEPTHS[encoding]
    _check_rows(message, depth)
    return _values(message, depth, 1)[..., 0]


def demosaiced(values: NDArray[Any], pattern: str) -> NDArray[np.uint8]:
    """A Bayer mosaic uint8 or uint16 [H, W] of a pattern such as "rggb" as RGB uint8 [H, W, 3]."""
    rgb = cv2.cvtColor(values, BAYER_CODES[pattern])
    return eight_bits(rgb) if rgb.dtype == np.uint16 else np.asarray(rgb, np.uint8)


def _from_packed(message: RawImage) -> Pixels:
    layout = PACKED[message.encoding]
    values = _values(message, layout.depth, layout.channels)
    if message.encoding.startswith("bayer_"):
        rgb = demosaiced(values[..., 0], message.encoding[len("bayer_") :].rstrip("0123456789"))
        return Pixels(rgb, ChannelOrder.RGB)
    if layout.channels == 1:
        return Pixels(grey_eight_bits(values[..., 0]), ChannelOrder.MONO)
    rgb = values if layout.code is None else cv2.cvtColor(values, layout.code)
    return Pixels(eight_bits(rgb) if layout.depth == 2 else rgb, ChannelOrder.RGB)


def _values(message: RawImage, depth: int, channels: int) -> NDArray[Any]:
    """The values of packed pixels, without padding and in native byte order, [H, W, C]."""
    kind = np.dtype("u1" if depth == 1 else ">u2" if message.is_bigendian else "<u2")
    shape = (message.height, message.width, channels)
    strides = (message.step, depth * channels, depth)
    view: NDArray[Any] = np.ndarray(shape, kind, _bytes(message), strides=strides)
    return np.array(view, kind.newbyteorder("="), order="C")


def _from_planes(message: RawImage) -> NDArray[np.uint8]:
    layout = PLANAR[message.encoding]
    height, width, step = message.height, message.width, _luma_step(message)
    data = np.frombuffer(_bytes(message), np.uint8)
    luma = data[: height * step].reshape(height, step)[:, :width]
    chroma = data[height * step :]
    if layout.code is None:
        pairs = chroma.reshape(height, 2 * step)[:, : 2 * width].reshape(height, width, 2)
        return _rgb_of_yuv(luma, pairs[..., ::-1] if layout.swapped else pairs)
    if layout.separate:
        planes = chroma.reshape(height, step // 2)[:, : width // 2]
    else:
        planes = chroma.reshape(height // 2, step)[:, :width]
    tight = np.concatenate([luma.reshape(-1), planes.reshape(-1)]).reshape(-1, width)
    return np.asarray(cv2.cvtColor(tight, layout.code), np.uint8)


def _rgb_of_yuv(luma: NDArray[np.uint8], chroma: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Y [H, W] and UV [H, W, 2], one of each per pixel, as RGB uint8 [H, W, 3]."""
    yuv = np.dstack([luma, chroma]).astype(np.float32) - _YUV_OFFSET
    rgb = cv2.transform(yuv, _YUV_TO_RGB)
    return np.rint(np.clip(rgb, 0, 255)).astype(np.uint8)


def _bytes(message: RawImage) -> memoryview:
    return memoryview(message.data)


def _check_rows(message: RawImage, pixel_bytes: int) -> None:
    """Raise ImageError where step and data do not hold the rows of packed pixels."""
    step, height, length = message.step, message.height, len(message.data)
    row_bytes = message.width * pixel_bytes
    if step < row_bytes:
        raise ImageError(
            f"row step {step} is too small: {message.width} pixels of {message.encoding} "
            f"take {row_bytes} bytes"
        )
    if length != step * height:
        fault = "short" if length < step * height else "long"
        raise ImageError(
            f"the data is too {fault}: {length} bytes, but step {step} x height {height} "
            f"is {step * height}"
        )


def _luma_step(message: RawImage) -> int:
    """Bytes from one row of Y to the next.

    `step` is that, or, as some drivers have it, the bytes of all planes per row of the image.
    Raises ImageError where neither fits the data.
    """
    layout, step, length = PLANAR[message.encoding], message.step, len(message.data)
    if layout.code is not None and (message.width % 2 or message.height % 2):
        raise ImageError(
            f"{message.encoding} needs an even width and height, not "
            f"{message.width}x{message.height} pixels"
        )
    for candidate in (step, round(step / layout.rows)):
        fits = candidate >= message.width and candidate * message.height * layout.rows == length
        if fits and (candidate % 2 == 0 or not layout.separate):
            return candidate
    needed = round(message.width * message.height * layout.rows)
    raise ImageError(
        f"the data does not fit: {length} bytes with row step {step}, but "
        f"{message.width}x{message.height} pixels of {message.encoding} take {needed}"
    )
