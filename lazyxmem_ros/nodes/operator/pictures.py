# SPDX-License-Identifier: Apache-2.0
"""Frames, requests and masks as the page gets them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from lazyxmem_ros.basics import Labels
from lazyxmem_ros.images import ImageError, read_image
from lazyxmem_ros.nodes.conversions import image_message, is_empty, read_labels, read_mask
from lazyxmem_ros.nodes.operator.runs import pack_labels, pack_mask
from lazyxmem_ros.nodes.operator.tracker_link import SeenFrame

HEAT_QUALITY = 70
ValueT = TypeVar("ValueT", np.bool_, np.uint8, np.uint16)


@dataclass(frozen=True)
class EncodedFrame:
    """A frame as it goes to browsers.

    header: the camera's. jpeg: the image, of `size` (H, W). runs: of its label map, of the same
    size, whose values from 1 on stand for `ids`. heat: the map of uncertainty as a grey JPEG, or
    empty. full_size: (H, W) of the camera's image. tracked: whether the tracker has seen it.
    """

    header: Header
    stamp: int
    jpeg: bytes
    runs: bytes
    ids: tuple[int, ...]
    heat: bytes
    size: tuple[int, int]
    full_size: tuple[int, int]
    tracked: bool

    @property
    def nbytes(self) -> int:
        """What keeping it costs."""
        return len(self.jpeg) + len(self.runs) + len(self.heat)

    def image_message(self) -> Image:
        """The image as the correction service takes it."""
        bgr = cv2.imdecode(np.frombuffer(self.jpeg, np.uint8), cv2.IMREAD_COLOR)
        return image_message(bgr, "bgr8", self.header)


def encode_frame(
    frame: SeenFrame, *, max_width: int, quality: int, max_pixels: int
) -> EncodedFrame:
    """Decodes a frame of at most `max_pixels`, and encodes it not wider than `max_width`; raises
    ImageError.
    """
    message: Image | CompressedImage = deserialize_message(frame.image, frame.image_type)
    rgb = _rgb(message, max_pixels)
    full_size = _size(rgb)
    rgb = fitted(rgb, max_width)
    size = _size(rgb)
    labels: Labels = np.zeros(size, np.uint16)
    if frame.labels is not None:
        read = read_labels(deserialize_message(frame.labels, Image), max_pixels=max_pixels)
        if read.shape == full_size:
            labels = resized(read, size)
    heat = b""
    if frame.entropy is not None:
        heat = _heat(deserialize_message(frame.entropy, Image), size, max_pixels)
    runs, ids = pack_labels(labels)
    return EncodedFrame(
        message.header,
        frame.stamp,
        jpeg(rgb, quality),
        runs,
        ids,
        heat,
        size,
        full_size,
        frame.labels is not None,
    )


@dataclass(frozen=True)
class EncodedRequest:
    """A request's picture: the image as JPEG, the runs of its mask, of the image's own `size`."""

    jpeg: bytes
    runs: bytes
    heat: bytes
    size: tuple[int, int]


def encode_request(
    image: Image,
    mask: Image,
    uncertainty: Image,
    *,
    max_width: int,
    quality: int,
    max_pixels: int,
) -> EncodedRequest:
    """Encodes what a request brings, of which the map may be left out; raises ImageError."""
    rgb = _rgb(image, max_pixels)
    size = _size(rgb)
    read = read_mask(mask, size)
    if read.shape != size:
        raise ImageError(f"the request's mask is {read.shape}, its image {size}")
    heat = b"" if is_empty(uncertainty) else _heat(uncertainty, size, max_pixels)
    return EncodedRequest(jpeg(fitted(rgb, max_width), quality), pack_mask(read), heat, size)


def _rgb(message: Image | CompressedImage, max_pixels: int) -> NDArray[np.uint8]:
    try:
        return read_image(message, max_pixels=max_pixels).rgb()
    except ImageError as error:  # the tracker has a limit of the same name
        raise ImageError(f"the console cannot read it: {error}") from error


def _heat(message: Image, size: tuple[int, int], max_pixels: int) -> bytes:
    """A map of uncertainty, 32FC1 or mono8, as a grey JPEG not larger than `size` (H, W)."""
    if message.encoding == "32FC1":
        expected = message.height * message.width * 4
        if len(message.data) != expected or message.step != message.width * 4:
            raise ImageError("the map of uncertainty is broken: its data do not fit its size")
        values = np.frombuffer(message.data, ">f4" if message.is_bigendian else "<f4")
        grey = (np.clip(np.nan_to_num(values), 0, 1) * 255).astype(np.uint8)
        grey = grey.reshape(message.height, message.width)
    else:
        grey = _rgb(message, max_pixels)[..., 0]
    grey = resized(np.ascontiguousarray(grey), size) if grey.shape != size else grey
    return jpeg(grey, HEAT_QUALITY)


def _size(image: NDArray[np.uint8]) -> tuple[int, int]:
    return image.shape[0], image.shape[1]


def fitted(image: NDArray[np.uint8], max_width: int) -> NDArray[np.uint8]:
    """An image [H, W, ...] made smaller where it is wider than `max_width`."""
    height, width = image.shape[:2]
    if width <= max_width:
        return image
    size = (max_width, max(1, round(height * max_width / width)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def resized(values: NDArray[ValueT], size: tuple[int, int]) -> NDArray[ValueT]:
    """A map [H, W] in another size (H, W), each pixel that of the nearest one."""
    if values.shape == size:
        return values
    flat = values.view(np.uint8) if values.dtype == bool else values
    made = cv2.resize(flat, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
    return np.asarray(made).astype(values.dtype)


def jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """An RGB image [H, W, 3], or a grey one [H, W], as JPEG; raises ImageError."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ImageError("the image could not be encoded as JPEG")
    return data.tobytes()
