# SPDX-License-Identifier: Apache-2.0
"""A video file, and masks by the numbers of its frames."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.files import image_files
from lazyxmem_ros.data.label_maps import are_binary
from lazyxmem_ros.data.layouts.masks import (
    FILES_ADVICE,
    can_be_scored_by,
    first_mask,
    naming_unused,
    read_into,
)
from lazyxmem_ros.data.layouts.options import DatasetOptions
from lazyxmem_ros.data.samples import Sample, VideoSequence, introduce
from lazyxmem_ros.data.videos import VideoFile


@dataclass(frozen=True)
class VideoFileSequence:
    """A video file's frames, with label maps as files.

    masks: by the number of their frame, from 0. binary, guessed, has_truth: see FolderSequence.
    """

    name: str
    video: VideoFile
    masks: tuple[tuple[int, Path], ...]
    binary: bool
    guessed: bool
    has_truth: bool
    mask_advice: str = FILES_ADVICE

    @property
    def files(self) -> tuple[Path, ...]:
        """See VideoSequence."""
        return (self.video.path, *(mask for _, mask in self.masks))

    def __len__(self) -> int:
        return self.video.frames

    def samples(self) -> Iterator[Sample]:
        """Decodes one frame at a time."""
        masks = dict(self.masks)
        return naming_unused(self._read(masks), masks, "no frame has this number (from 0 on)")

    def _read(self, masks: dict[int, Path]) -> Iterator[Sample]:
        """The frames; takes out of `masks` what it uses."""
        known: set[int] = set()
        for index, (stamp, image) in enumerate(self.video.stamped()):
            sample = Sample(index, f"{index:05d}", stamp, image)
            mask = masks.pop(index, None)
            read_into(sample, None, mask, binary=self.binary, guessed=self.guessed)
            introduce(sample, known)
            if not self.has_truth:
                sample.truth = None
            yield sample


def open_video(path: Path, options: DatasetOptions) -> VideoSequence:
    """A video file; masks in options.masks, named by the number of their frame."""
    video = VideoFile.open(path, options.rate)
    masks: dict[int, Path] = {}
    for stem, file in ({} if options.masks is None else image_files(options.masks)).items():
        number = re.search(r"([0-9]+)$", stem)
        if number is None:
            raise DatasetError(
                f"{options.masks}: label maps of a video are named by the number of their frame, "
                f"from 0, not {file.name}"
            )
        other = masks.setdefault(int(number[1]), file)
        if other is not file:
            raise DatasetError(
                f"{options.masks}: {other.name} and {file.name} are both of frame "
                f"{int(number[1])}; put the masks of all objects into one label map"
            )
    first = first_mask(options.first_mask, masks.get(0))
    if first is not None:
        masks[0] = first
    entries = tuple(sorted(masks.items()))
    files = [mask for _, mask in entries]
    binary = options.binary or are_binary(files)
    has_truth = can_be_scored_by(files, video.frames, binary=binary)
    return VideoFileSequence(path.stem, video, entries, binary, not options.binary, has_truth)
