# SPDX-License-Identifier: Apache-2.0
"""What is tracked: the frames of a video file or of a folder, with their times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.files import IMAGE_SUFFIXES, image_files, is_bag
from lazyxmem_ros.data.videos import DEFAULT_RATE, VideoFile, check_rate, no_video
from lazyxmem_ros.images import ImageError
from lazyxmem_ros.images.files import read_image_file

Image = NDArray[np.uint8]

Faulty = Callable[[str], None]
"""Is told what is wrong with a frame, which is then left out, or raises."""


def stop(fault: str) -> None:
    """The `Faulty` that leaves out nothing; raises DatasetError."""
    raise DatasetError(fault)


class StampedFrame(NamedTuple):
    """A frame: its name, its stamp (ns from the first one) and its image, RGB uint8 [H, W, 3]."""

    name: str
    stamp: int
    image: Image | None


@dataclass(frozen=True)
class Video:
    """Frames to track: a video file, or a folder of images in natural order of their names.

    frames: their number, as the file says it. rate: frames per second. besides: files in the
    folder that are no frames. own_times: see VideoFile.
    """

    path: Path
    frames: int
    rate: float
    besides: tuple[Path, ...] = ()
    own_times: bool = True

    @classmethod
    def open(
        cls, path: str | Path, rate: float | None = None, *, besides: tuple[Path, ...] = ()
    ) -> Video:
        """Look what there is. rate: instead of the file's own times. Raises DatasetError."""
        check_rate(rate)
        path = Path(path)
        if path.is_dir():
            count = len(image_files(path, besides=besides))
            if not count and is_bag(path):
                raise no_video(path)
            if not count:
                raise DatasetError(f"{path}: no images ({', '.join(IMAGE_SUFFIXES)})")
            return cls(path, count, rate or DEFAULT_RATE, besides)
        video = VideoFile.open(path, rate)
        return cls(path, video.frames, video.rate, own_times=video.own_times)

    def __iter__(self) -> Iterator[tuple[str, Image]]:
        """Name and image, RGB uint8 [H, W, 3], of each frame; raises DatasetError."""
        return ((name, image) for name, _, image in self.read(stop) if image is not None)

    def read(self, faulty: Faulty) -> Iterator[StampedFrame]:
        """The frames; the image is None where it cannot be read.

        Raises DatasetError where that is the first: the masks to track are of that one.
        """
        if not self.path.is_dir():
            video = VideoFile(self.path, self.frames, self.rate, self.own_times)
            count = 0
            try:
                for stamp, image in video.stamped():
                    yield StampedFrame(f"{count:05d}", stamp, image)
                    count += 1
            except DatasetError as error:
                if not count:
                    raise
                faulty(str(error))
            return
        files = image_files(self.path, besides=self.besides)
        for index, (name, file) in enumerate(files.items()):
            picture: Image | None = None
            try:
                picture = read_image_file(file)
            except ImageError as error:
                if index == 0:
                    raise DatasetError(f"{error}; the mask is of this first frame") from error
                faulty(str(error))
            yield StampedFrame(name, round(index / self.rate * SECOND), picture)
