# SPDX-License-Identifier: Apache-2.0
"""Image files and videos: read as every viewer shows them, written for people."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lazyxmem_ros.images.compressed import decode, opened_by_pillow
from lazyxmem_ros.images.pixels import ImageError
from lazyxmem_ros.signals import undisturbed

CRF = 20
"""Constant rate factor of H.264: 18 looks lossless, 23 is the encoder's default."""
_ORIENTATION_TAG = 0x0112
_UPRIGHT = 1


def check_regular(path: Path) -> None:
    """Raise ImageError for what has no end or waits for somebody: devices, pipes, sockets.

    What is not there at all is left to who opens it.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ImageError("it is a device or a pipe, not a file")


def read_image_file(path: Path, *, max_pixels: int | None = None) -> NDArray[np.uint8]:
    """An image file as RGB uint8 [H, W, 3], turned upright as its EXIF data say.

    max_pixels: at most; None: MAX_PIXELS. Raises ImageError with the file's name where it does not
    decode to its end.
    """
    try:
        check_regular(path)
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
        with opened_by_pillow(io.BytesIO(data)) as picture:
            if picture.format == "TIFF":
                return _UPRIGHT  # OpenCV has turned it
            return int(picture.getexif().get(_ORIENTATION_TAG, _UPRIGHT))
    except Exception:  # noqa: BLE001 - unreadable EXIF data are none
        return _UPRIGHT


class WriteError(OSError):
    """A file that cannot be written; the text names it, and says why."""


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all, whatever breaks it off. Folders are made.

    Raises WriteError.
    """
    # Neither another process nor another thread writes into it.
    beside = path.with_name(f".part-{os.getpid()}-{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(data)
        beside.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise WriteError(f"{path} cannot be written: {error.strerror or error}") from error
        raise


def save_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an RGB image as `write_whole` does; the suffix decides the format."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, Image.registered_extensions()[path.suffix.lower()])
    write_whole(path, data.getvalue())


def write_video(path: Path, frames: Iterable[NDArray[np.uint8]], *, rate: float) -> int:
    """Write an H.264 video of RGB frames at `rate` frames per second; returns their number.

    Odd sizes, which H.264 has not, get a last row or column once more. What breaks off the frames
    leaves a video of those before. Raises ImageError where there is no frame or the encoder fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    encoder: _Encoder | None = None
    count = 0
    try:
        for frame in frames:
            height, width = frame.shape[:2]
            even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            if encoder is None:
                encoder = _Encoder(path, even.shape[1], even.shape[0], rate)
            encoder.add(even)
            count += 1
    finally:
        if encoder is not None:
            encoder.close()
    if count == 0:
        raise ImageError(f"{path}: a video needs at least one frame")
    return count


class _Encoder:
    """FFmpeg, which writes a video of the frames that it is given.

    `imageio_ffmpeg` brings the program; its own writer does not tell whether that has failed.
    """

    def __init__(self, path: Path, width: int, height: int, rate: float) -> None:
        import imageio_ffmpeg

        self._path = path
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        source = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {rate:.6g} -i -".split()
        codec = f"-an -c:v libx264 -pix_fmt yuv420p -crf {CRF} -movflags +faststart".split()
        program = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error"]
        with undisturbed():
            self._process = subprocess.Popen(
                [*program, *source, *codec, f"file:{path}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._said,
                start_new_session=True,  # Ctrl-C is ours; it ends when the frames do
            )

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Encode the next frame, of the size that was announced.

        Raises BrokenPipeError where FFmpeg has ended; `close` says why.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(np.ascontiguousarray(frame).data)

    def close(self) -> None:
        """Complete the video; removes it and raises ImageError where it could not be."""
        try:
            self._process.communicate()
        finally:
            self._process.kill()
        with self._said:
            self._said.seek(0)
            lines = self._said.read().decode(errors="replace").splitlines()
        if self._process.returncode:
            self._path.unlink(missing_ok=True)
            reason = lines[0] if lines else f"FFmpeg ended with {self._process.returncode}"
            raise ImageError(f"{self._path}: the video could not be encoded: {reason}")
