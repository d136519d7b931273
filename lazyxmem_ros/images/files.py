# SPDX-License-Identifier: Apache-2.0
"""Image files and videos: read as every viewer shows them, written for people."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lazyxmem_ros.images.compressed import decode
from lazyxmem_ros.images.pixels import MAX_PIXELS, ImageError

CRF = 20
"""Constant rate factor of H.264: 18 looks lossless, 23 is the encoder's default."""
_ORIENTATION_TAG = 0x0112
_UPRIGHT = 1


def read_image_file(path: Path, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """An image file as RGB uint8 [H, W, 3], turned upright as its EXIF data say.

    Raises ImageError with the file's name where it does not decode to its end.
    """
    try:
        data = path.read_bytes()
        rgb = decode(data, "", max_pixels).rgb()
    except (ImageError, OSError) as error:
        raise ImageError(f"{path}: the image cannot be read: {error}") from error
    orientation = _orientation_of(data)
    return rgb if orientation == _UPRIGHT else np.ascontiguousarray(turned(rgb, orientation))


def turned(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    """An image [H, W, ...] stored with an EXIF orientation (1..8), upright; a view of it."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image


def _orientation_of(data: bytes) -> int:
    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.format == "TIFF":
                return _UPRIGHT  # OpenCV has turned it
            return int(picture.getexif().get(_ORIENTATION_TAG, _UPRIGHT))
    except Exception:  # noqa: BLE001 - unreadable EXIF data are none
        return _UPRIGHT


def save_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an RGB image; the suffix decides the format. Folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def write_video(path: Path, frames: Iterable[NDArray[np.uint8]], *, rate: float) -> int:
    """Write an H.264 video of RGB frames at `rate` frames per second; returns their number.

    Raises ImageError where there is no frame or the encoder fails.
    """
    import imageio_ffmpeg

    path.parent.mkdir(parents=True, exist_ok=True)
    encoder = None
    count = 0
    try:
        for frame in frames:
            if encoder is None:
                encoder = imageio_ffmpeg.write_frames(
                    str(path),
                    (frame.shape[1], frame.shape[0]),
                    fps=rate,
                    codec="libx264",
                    macro_block_size=2,
                    output_params=["-crf", str(CRF), "-movflags", "+faststart"],
                    ffmpeg_log_level="error",
                )
                encoder.send(None)
            encoder.send(np.ascontiguousarray(frame))
            count += 1
    except OSError as error:
        raise ImageError(f"{path}: the video could not be encoded: {error}") from error
    finally:
        if encoder is not None:
            encoder.close()
    if count == 0:
        raise ImageError(f"{path}: a video needs at least one frame")
    return count
