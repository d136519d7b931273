# SPDX-License-Identifier: Apache-2.0
"""Image files and videos: read as every viewer shows them, written for people."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lazyxmem_ros.images.compressed import PNG_SIGNATURE, decode, opened_by_pillow
from lazyxmem_ros.images.pixels import MAX_PIXELS, ImageError
from lazyxmem_ros.signals import undisturbed

CRF = 20
"""Constant rate factor of H.264: 18 looks lossless, 23 is the encoder's default."""
MOST_PIXEL_BYTES = 8
"""Four channels of 16 bits, not compressed."""
ABOUT_BYTES = 64 << 20
"""What a file may hold about its picture."""
_ORIENTATION_TAG = 0x0112
_PNG_HEAD = struct.Struct(">I4s")
"""Of a chunk: how many bytes it has, and its kind. A checksum of 4 bytes is behind them."""
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_PNG_EXIF_TEXTS = (b"Raw profile type", b"XML:com.adobe.xmp")
"""How texts begin in which programs of former days kept EXIF data."""
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
        _check_bytes(path, MAX_PIXELS if max_pixels is None else max_pixels)
        data = path.read_bytes()
        rgb = decode(data, "", max_pixels).rgb()
    except (ImageError, OSError) as error:
        raise ImageError(f"{path}: the image cannot be read: {error}") from error
    orientation = _orientation_of(data)
    return rgb if orientation == _UPRIGHT else np.ascontiguousarray(turned(rgb, orientation))


def _check_bytes(path: Path, max_pixels: int) -> None:
    """Raise ImageError for a file that is larger than any picture of so many pixels."""
    size, most = path.stat().st_size, MOST_PIXEL_BYTES * max_pixels + ABOUT_BYTES
    if size > most:
        raise ImageError(
            f"it has {size / 1e6:.0f} MB, more than any picture of {max_pixels} pixels"
        )


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
    if data.startswith(PNG_SIGNATURE) and not _may_have_exif(data):
        return _UPRIGHT  # Pillow would decode all of it to look behind the pixels
    try:
        with opened_by_pillow(io.BytesIO(data)) as picture:
            if picture.format == "TIFF":
                return _UPRIGHT  # OpenCV has turned it
            return int(picture.getexif().get(_ORIENTATION_TAG, _UPRIGHT))
    except Exception:  # noqa: BLE001 - unreadable EXIF data are none
        return _UPRIGHT


def _may_have_exif(png: bytes) -> bool:
    """Whether a PNG file has a chunk that says how it is to be turned."""
    position = len(PNG_SIGNATURE)
    while position + _PNG_HEAD.size <= len(png):
        length, kind = _PNG_HEAD.unpack_from(png, position)
        begin = position + _PNG_HEAD.size
        if kind == b"eXIf" or (kind in _PNG_TEXTS and png.startswith(_PNG_EXIF_TEXTS, begin)):
            return True
        position = begin + length + 4
    return False


class WriteError(OSError):
    """A file that cannot be written; the text names it, and says why."""


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all, whatever breaks it off. Folders are made.

    Raises WriteError.
    """
    beside = _beside(path)
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


def _beside(path: Path) -> Path:
    """A file for what becomes another one; no other process and no other thread writes into it."""
    return path.with_name(f".part-{os.getpid()}-{threading.get_ident()}")


def save_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an RGB image as `write_whole` does; the suffix decides the format."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, Image.registered_extensions()[path.suffix.lower()])
    write_whole(path, data.getvalue())


def write_video(path: Path, frames: Iterable[NDArray[np.uint8]], *, rate: float) -> int:
    """Write an H.264 video of RGB frames at `rate` frames per second; returns their number.

    Odd sizes, which H.264 has not, get a last row or column once more. What breaks off the frames
    leaves a video of those before. Raises ImageError where there is no frame, VideoError where
    FFmpeg is not there or fails.
    """
    encoder: _Encoder | None = None
    count = 0
    try:
        for frame in frames:
            if encoder is None:
                encoder = _Encoder(path, frame.shape[:2], rate)
            encoder.add(frame)
            count += 1
    except BaseException:
        if encoder is not None:
            with contextlib.suppress(VideoError):  # what has come before is the cause
                encoder.close()
        raise
    if encoder is None:
        raise ImageError(f"{path}: a video needs at least one frame")
    encoder.close()
    return count


class VideoError(ImageError):
    """A video that cannot be encoded; the text names it, and says why."""


class _Encoder:
    """FFmpeg, which writes a video of the frames that it is given.

    `imageio_ffmpeg` brings the program; its own writer does not tell whether that has failed.
    """

    def __init__(self, path: Path, size: tuple[int, ...], rate: float) -> None:
        """size: height and width of the frames. Raises VideoError."""
        self._path, self._size = path, size
        self._beside = _beside(path).with_suffix(path.suffix)
        height, width = (side + side % 2 for side in size)
        source = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {rate:.6g} -i -".split()
        codec = f"-an -c:v libx264 -pix_fmt yuv420p -crf {CRF} -movflags +faststart".split()
        try:
            import imageio_ffmpeg

            program = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error"]
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.ExitStack() as failing, undisturbed():
                self._said = failing.enter_context(tempfile.TemporaryFile())
                self._process = subprocess.Popen(
                    [*program, *source, *codec, f"file:{self._beside}"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=self._said,
                    start_new_session=True,  # Ctrl-C is ours; it ends when the frames do
                )
                failing.pop_all()  # `close` closes it
        except (OSError, RuntimeError, ImportError) as error:  # a RuntimeError of imageio_ffmpeg's
            raise self._failed(str(error)) from error

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Encode the next frame, of the size that was announced. Raises VideoError."""
        height, width = frame.shape[:2]
        if (height, width) != self._size:
            first = "x".join(map(str, reversed(self._size)))
            raise self._failed(f"a frame is of {width}x{height} pixels, the first one of {first}")
        even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(np.ascontiguousarray(even).data)
        except BrokenPipeError as error:  # FFmpeg has ended
            self.close()
            raise self._failed("FFmpeg has ended") from error

    def close(self) -> None:
        """Complete the video. Raises VideoError where it could not be, and leaves none."""
        if self._said.closed:
            return
        try:
            self._process.communicate()
            with self._said:
                self._said.seek(0)
                lines = self._said.read().decode(errors="replace").splitlines()
            if self._process.returncode:
                said = lines[0] if lines else f"FFmpeg ended with {self._process.returncode}"
                raise self._failed(said.replace(str(self._beside), str(self._path)))
            self._beside.replace(self._path)
        except OSError as error:
            raise self._failed(error.strerror or str(error)) from error
        finally:
            self._process.kill()
            self._beside.unlink(missing_ok=True)

    def _failed(self, reason: str) -> VideoError:
        return VideoError(f"{self._path}: the video could not be encoded: {reason}")
