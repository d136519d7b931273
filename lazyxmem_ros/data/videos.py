# SPDX-License-Identifier: Apache-2.0
"""Video files, frame by frame, as every player shows them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import cv2
import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.data.display_matrix import DisplayMatrixError, Turn, shown_seconds, turn_of
from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.files import BAG_SUFFIXES, IMAGE_SUFFIXES, is_text, suffix_of
from lazyxmem_ros.images.pixels import ImageError, check_size

DEFAULT_RATE = 24.0
"""Frames per second of a folder of frames (DAVIS), or of a video that does not say."""
LEAST_RATE, MOST_RATE = 1e-3, 1e4
"""Frames per second; what lies outside is no rate, but a mistake."""
COUNT_SLACK = 2
"""A container that only estimates how many frames it has may be wrong by so many."""
ROUNDING_S = 1e-3
"""What times of frames are rounded to in some containers."""
SOUND_SLACK_S = 1.0
"""For so long the sound may go on behind the last frame, where the length is that of both."""


def check_rate(rate: float | None) -> None:
    """Raise DatasetError for a rate, frames per second, that cannot be meant; None is none."""
    if rate is not None and not LEAST_RATE <= rate <= MOST_RATE:
        raise DatasetError(
            f"--rate is frames per second, {LEAST_RATE:g} to {MOST_RATE:g}, not {rate:g}"
        )


def no_video(bag: Path) -> DatasetError:
    """What is wrong with a bag that is given as a video."""
    return DatasetError(
        f"{bag}: is a bag, no video; `lazyxmem evaluate` reads it with --layout bag"
    )


@dataclass(frozen=True)
class VideoFile:
    """A video that OpenCV reads.

    frames: as its container announces, counted where it does not say. rate: frames per second.
    own_times: each frame is at the time that its container says, not at its number by the rate.
    """

    path: Path
    frames: int
    rate: float
    own_times: bool = True

    @classmethod
    def open(cls, path: Path, rate: float | None = None) -> VideoFile:
        """rate: instead of the video's own times. Raises DatasetError for nothing to read, and for
        a rate that cannot be meant.
        """
        check_rate(rate)
        if not path.is_file():
            raise DatasetError(f"{path}: no such video or folder")
        if suffix_of(path) in BAG_SUFFIXES:
            raise no_video(path)
        if suffix_of(path) in IMAGE_SUFFIXES:
            raise DatasetError(
                f"{path}: is one picture, no video; give the folder in which the frames lie"
            )
        with closing(_Capture(path)) as capture:
            own = capture.number(cv2.CAP_PROP_FPS)
            own = own if LEAST_RATE <= own <= MOST_RATE else 0.0
            frames = int(capture.number(cv2.CAP_PROP_FRAME_COUNT)) or capture.count()
        return cls(path, frames, rate or own or DEFAULT_RATE, own_times=rate is None)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """The images of `stamped`."""
        return (image for _, image in self.stamped())

    def stamped(self) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """The stamp of each frame, ns from the first one, and its image, RGB uint8 [H, W, 3],
        turned as the display matrix says.

        Raises DatasetError, once all that is intact has been yielded, for a video that ends before
        its length.
        """
        count = 0
        begin = stamp = 0
        with closing(_Capture(self.path)) as capture:
            while (frame := capture.read()) is not None:
                said, image = frame
                if not self.own_times:
                    stamp = round(count / self.rate * SECOND)
                elif count == 0:
                    begin = said
                else:  # times may be missing, or too coarse for the rate
                    later = said - begin
                    stamp = later if later > stamp else stamp + round(SECOND / self.rate)
                yield stamp, image
                count += 1
            all_shown = capture.reaches_the_end()
        if count < max(1, self.frames - COUNT_SLACK) and not (count and all_shown):
            raise DatasetError(
                f"{self.path}: the video ends after {count} of its {self.frames} frames; it was "
                "cut short or is damaged: copy it again, or cut it to what is there"
            )


class _Capture:
    """An open video; raises DatasetError where OpenCV cannot read it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._until = self._longest = 0.0
        self._file = ExitStack()
        # Of a relative name FFmpeg takes what is before a colon for a protocol.
        name = str(path.absolute())
        if not is_text(name):  # such a name crashes OpenCV
            file = self._file.enter_context(path.open("rb"))
            name = f"/proc/self/fd/{file.fileno()}"
        self._capture = cv2.VideoCapture(name)
        if not self._capture.isOpened():
            self.close()
            raise DatasetError(
                f"{path}: not a video that OpenCV can read: it is of another kind, damaged, or cut "
                "short (an MP4 file without its end cannot be read): copy it again, or convert it "
                f"by `ffmpeg -i {quote(path.name)} new.mp4`"
            )
        try:
            width, height = (
                int(self.number(name))
                for name in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
            )
            check_size(width, height, None)
        except ImageError as error:
            self.close()
            raise DatasetError(f"{path}: {error}") from error
        # Whether OpenCV turns frames itself depends on how it was built, so it is told not to.
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        self._turn = Turn()
        if not self._capture.get(cv2.CAP_PROP_ORIENTATION_AUTO):
            try:
                self._turn = turn_of(path, self.number(cv2.CAP_PROP_ORIENTATION_META))
            except DisplayMatrixError as error:
                self.close()
                raise DatasetError(
                    f"{path}: {error}; `ffmpeg -i {quote(path.name)} upright.mp4` makes a video of "
                    "what players show"
                ) from error

    def number(self, name: int) -> float:
        """A property, 0 where it is unknown."""
        value = float(self._capture.get(name))
        return value if math.isfinite(value) and value > 0 else 0.0

    def read(self) -> tuple[int, NDArray[np.uint8]] | None:
        """The time (ns) that the container says of the next frame, and its image; None at the end.

        The time is 0 where it is unknown.
        """
        read, frame = self._capture.read()
        if not read:
            return None
        at = self.number(cv2.CAP_PROP_POS_MSEC) / 1000
        self._longest = max(self._longest, at - self._until)
        self._until = max(self._until, at)
        image = np.ascontiguousarray(self._turn.of(frame[..., ::-1]), dtype=np.uint8)
        return round(at * SECOND), image

    def reaches_the_end(self) -> bool:
        """Whether the frames that were read last as long as the file says.

        There may be fewer of them than it says: an edit list hides some, or, where their number is
        only estimated, they do not come at a steady rate.
        """
        rate = self.number(cv2.CAP_PROP_FPS) or DEFAULT_RATE
        length, slack = shown_seconds(self._path), (COUNT_SLACK + 1) / rate
        if length is None:
            length, slack = self.number(cv2.CAP_PROP_FRAME_COUNT) / rate, SOUND_SLACK_S
        return length - self._until <= max(slack, self._longest) + ROUNDING_S

    def count(self) -> int:
        """The number of frames from here on, which are gone through."""
        count = 0
        while self._capture.grab():
            count += 1
        return count

    def close(self) -> None:
        self._capture.release()
        self._file.close()
