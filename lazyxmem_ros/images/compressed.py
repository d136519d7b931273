# SPDX-License-Identifier: Apache-2.0
"""Pixels of compressed images: JPEG, PNG, WebP and whatever else OpenCV decodes.

The header is read first, so that a few bytes which claim to be a huge picture cost nothing, and
what was cut short is refused rather than shown with a grey rest.
"""

from __future__ import annotations

import io
import os
import struct
import threading
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
from PIL import Image

from lazyxmem_ros.images.pixels import (
    ChannelOrder,
    ImageError,
    Pixels,
    check_size,
    eight_bits,
    grey_eight_bits,
)
from lazyxmem_ros.images.raw import BAYER_CODES, demosaiced

# What OpenCV would print of each damaged picture is said in an error, once; what libpng and libjpeg
# print themselves nobody keeps them from. FFmpeg, by which it reads videos, has a level of its own,
# which is read when the first one is opened; -8 is silence.
cv2.setLogLevel(0)
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"
_START_OF_SCAN = 0xDA
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_PILLOW = threading.Lock()
"""Held while Pillow's limit is another."""
_FLAGS = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION


def opened_by_pillow(source: Path | BinaryIO) -> Image.Image:
    """A picture whose pixels are not decoded yet, of any size: Pillow's own limit holds for some
    formats alone, and has other words than `check_size`.
    """
    with _PILLOW:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(source)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


class _Header(NamedTuple):
    """Size in pixels, and whether the data reaches the end that its format marks."""

    width: int
    height: int
    complete: bool


def check_compressed(data: bytes, form: str, max_pixels: int | None) -> None:
    """Raise ImageError for what `decode` would refuse, as far as no pixel need be decoded."""
    if not data:
        raise ImageError("the compressed image is empty")
    if "compressedDepth" in form:
        raise ImageError(f"format {form!r} is a depth image, not a colour or grey one")
    header = _read_header(data)
    if header is None:
        raise ImageError(
            f"{_described(data, form)} did not decode: neither JPEG, PNG nor another format that "
            "is known, or cut short"
        )
    check_size(header.width, header.height, max_pixels)
    if not header.complete:
        raise ImageError(f"{_described(data, form)} did not decode: they are cut short")


def decode(data: bytes, form: str, max_pixels: int | None) -> Pixels:
    """The pixels of a compressed image; orientations in it are ignored. Raises ImageError.

    form: the format string of a sensor_msgs/CompressedImage, empty for a file. It tells what the
    pixels say nothing of: a Bayer mosaic ("bayer_rggb8; png compressed bayer_rggb8"), and red and
    blue that were exchanged before ("rgb8; png compressed rgb8").
    """
    check_compressed(data, form, max_pixels)
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS)
    except cv2.error as error:
        raise ImageError(f"{_described(data, form)} did not decode: {error}") from error
    if decoded is None:
        raise ImageError(
            f"{_described(data, form)} did not decode: damaged, or not a format that OpenCV reads"
        )
    if decoded.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"pixels of {decoded.dtype} are neither a colour nor a grey image")
    encoding, _, how = form.partition(";")
    if decoded.ndim == 2:
        pattern = encoding.strip().removeprefix("bayer_").rstrip("0123456789")
        if encoding.strip().startswith("bayer_") and pattern in BAYER_CODES:
            return Pixels(demosaiced(decoded, pattern), ChannelOrder.RGB)
        grey = grey_eight_bits(decoded) if decoded.dtype == np.uint16 else decoded
        return Pixels(np.asarray(grey, np.uint8), ChannelOrder.MONO)
    colours = eight_bits(decoded) if decoded.dtype == np.uint16 else decoded
    order = ChannelOrder.RGB if "compressed rgb" in how else ChannelOrder.BGR
    return Pixels(np.asarray(colours, np.uint8), order)


def _described(data: bytes, form: str) -> str:
    return f"{len(data)} bytes" + (f" of format {form!r}" if form else "")


def _read_header(data: bytes) -> _Header | None:
    """None where nothing is known of the format, or the header itself is cut short."""
    if data.startswith(PNG_SIGNATURE):
        if len(data) < 24:
            return None
        width, height = struct.unpack_from(">II", data, 16)
        return _Header(width, height, data.rfind(b"IEND") > 0)
    if data.startswith(_JPEG_SIGNATURE):
        return _jpeg_header(data)
    try:
        with opened_by_pillow(io.BytesIO(data)) as picture:
            # OpenCV refuses others that are cut short.
            return _Header(picture.width, picture.height, True)
    except Exception:  # noqa: BLE001 - each of Pillow's formats has errors of its own
        return None


def _jpeg_header(data: bytes) -> _Header | None:
    """Walks through the segments to the first scan, whose data ends with a marker."""
    size: tuple[int, int] | None = None
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF or marker in _WITHOUT_LENGTH:
            position += 1 if marker == 0xFF else 2
            continue
        if marker in _START_OF_FRAME and position + 9 <= len(data):
            height, width = struct.unpack_from(">HH", data, position + 5)
            size = width, height
        if marker == _START_OF_SCAN:
            return None if size is None else _Header(*size, data.find(_JPEG_END, position) > 0)
        position += 2 + int(struct.unpack_from(">H", data, position + 2)[0])
    return None
