# SPDX-License-Identifier: Apache-2.0
"""Frames in folders: the trees of DAVIS and LVOS, and a plain one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.files import IMAGE_SUFFIXES, children, image_files, natural_order
from lazyxmem_ros.data.label_maps import are_binary
from lazyxmem_ros.data.layouts.masks import (
    FILES_ADVICE,
    can_be_scored_by,
    first_mask,
    read_into,
)
from lazyxmem_ros.data.layouts.options import DatasetOptions, Layout
from lazyxmem_ros.data.samples import Sample, UnreadableSequence, VideoSequence, introduce
from lazyxmem_ros.data.videos import DEFAULT_RATE

LVOS_RATE = 6.0
"""Frames per second of LVOS."""
RESOLUTION = r"\d+p|Full-Resolution"
"""Names of the folders in a tree that are resolutions, not sequences."""
REGULAR_SHARE = 0.8
"""Frames are numbered in equal steps, and so a larger one is a gap, where so many steps are."""


@dataclass(frozen=True)
class FrameFiles:
    """A frame's files; either may be absent."""

    key: str
    image: Path | None
    mask: Path | None


@dataclass(frozen=True)
class FolderSequence:
    """Frames and label maps as files.

    binary: any non-zero pixel is object 1. guessed: nobody has said so, but the first mask.
    has_truth: False where the masks only introduce objects (test sets of DAVIS 2017, LVOS and
    YouTube-VOS).
    mask_advice: see VideoSequence.
    """

    name: str
    frames: tuple[FrameFiles, ...]
    binary: bool
    guessed: bool
    rate: float = DEFAULT_RATE
    has_truth: bool = True
    mask_advice: str = FILES_ADVICE

    @property
    def files(self) -> tuple[Path, ...]:
        """See VideoSequence."""
        both = (file for frame in self.frames for file in (frame.image, frame.mask))
        return tuple(file for file in both if file is not None)

    def __len__(self) -> int:
        return len(self.frames)

    def samples(self) -> Iterator[Sample]:
        """Reads the files one frame at a time."""
        known: set[int] = set()
        for index, files in enumerate(self.frames):
            stamp = round(index / self.rate * SECOND)
            sample = Sample(index, files.key, stamp)
            read_into(sample, files.image, files.mask, binary=self.binary, guessed=self.guessed)
            introduce(sample, known)
            if not self.has_truth:
                sample.truth = None
            yield sample


def open_tree(path: Path, layout: Layout, options: DatasetOptions) -> list[VideoSequence]:
    """JPEGImages[/RESOLUTION]/NAME and Annotations[/RESOLUTION]/NAME.

    Annotations without images become an UnreadableSequence.
    """
    images, masks = _resolved(path / "JPEGImages"), _resolved(path / "Annotations")
    binary = options.binary or layout is Layout.DAVIS2016
    guessed = not options.binary and options.layout is Layout.AUTO
    rate = options.rate or (LVOS_RATE if layout is Layout.LVOS else DEFAULT_RATE)
    sequences: list[VideoSequence] = []
    for folder in _folders_in(images):
        frames = _pair_files(folder, masks / folder.name)
        advice = (
            f"put label maps that show one, named as the frames are, into {masks / folder.name}"
        )
        has_truth = can_be_scored_by(
            _masks_of(frames), len(frames), binary=binary, introduced_again=layout is Layout.LVOS
        )
        sequences.append(
            FolderSequence(folder.name, frames, binary, guessed, rate, has_truth, advice)
        )
    known = {sequence.name for sequence in sequences}
    sequences.extend(
        UnreadableSequence(
            folder.name, f"{images / folder.name}: there is no such folder of images, but {folder}"
        )
        for folder in _folders_in(masks)
        if folder.name not in known
    )
    return sequences


def sequences_in_tree(path: Path) -> list[str]:
    """The names of those sequences of a tree that have images; raises DatasetError."""
    return [folder.name for folder in _folders_in(_resolved(path / "JPEGImages"))]


def _folders_in(folder: Path) -> list[Path]:
    return [child for child in children(folder) if child.is_dir()]


def open_folder(path: Path, options: DatasetOptions) -> VideoSequence:
    """Frames in `path` or `path`/frames|images; masks in options.masks or `path`/masks."""
    images = next((path / name for name in ("frames", "images") if (path / name).is_dir()), path)
    masks = options.masks or path / "masks"
    first = [] if options.first_mask is None else [options.first_mask]
    frames = list(_pair_files(images, masks, besides=first))
    if not frames:
        raise DatasetError(f"{images}: no images ({', '.join(IMAGE_SUFFIXES)})")
    frames[0] = replace(frames[0], mask=first_mask(options.first_mask, frames[0].mask))
    found = _masks_of(frames)
    rate = options.rate or DEFAULT_RATE
    binary = options.binary or are_binary(found)
    has_truth = can_be_scored_by(found, len(frames), binary=binary)
    name, guessed = path.resolve().name, not options.binary
    return FolderSequence(name, tuple(frames), binary, guessed, rate, has_truth)


def _masks_of(frames: Sequence[FrameFiles]) -> list[Path]:
    return [files.mask for files in frames if files.mask is not None]


def _resolved(folder: Path) -> Path:
    """DAVIS has one more level, the resolution; 480p is what its figures are about."""
    if not folder.is_dir():
        raise DatasetError(
            f"{folder}: this folder of the layout is missing; give the folder that holds "
            "JPEGImages and Annotations, or with --layout folder one of frames"
        )
    found = [child.name for child in _folders_in(folder)]
    resolutions = [name for name in found if re.fullmatch(RESOLUTION, name)]
    for name in ("480p", "Full-Resolution"):
        if name in resolutions:
            return folder / name
    if len(found) == 1 and resolutions:
        return folder / found[0]
    if len(found) == len(resolutions) > 1:
        raise DatasetError(
            f"{folder}: has {' and '.join(found)}, but not 480p; move all but one elsewhere"
        )
    return folder


def _pair_files(
    images: Path, masks: Path, *, besides: Sequence[Path] = ()
) -> tuple[FrameFiles, ...]:
    """Images and masks by their stems, in the order of the numbers in them, gaps included.

    besides: files among the images that are no frames.
    """
    frames = image_files(images, besides=besides)
    labels = image_files(masks) if masks.is_dir() else {}
    stems = sorted(frames.keys() | labels.keys(), key=natural_order)
    return tuple(
        FrameFiles(stem, frames.get(stem), labels.get(stem)) for stem in _without_gaps(stems)
    )


def _without_gaps(stems: list[str]) -> list[str]:
    """The stems with those of missing frames, where the others are numbered in equal steps."""
    numbered = [re.fullmatch(r"(.*?)(\d+)", stem) for stem in stems]
    found = [match for match in numbered if match is not None]
    if len(found) < len(stems) or len({match[1] for match in found}) != 1 or len(stems) < 3:
        return stems
    numbers = [int(match[2]) for match in found]
    steps = np.diff(numbers)
    step = Counter(steps.tolist()).most_common(1)[0][0]
    regular = step > 0 and (steps == step).mean() >= REGULAR_SHARE
    # Two files of one number, or a number out of all proportion: not what it seems to be.
    if (
        not regular
        or (steps % step).any()
        or steps.min() < step
        or steps.sum() > 2 * step * len(stems)
    ):
        return stems
    present = dict(zip(numbers, stems, strict=True))
    prefix, width = found[0][1], len(found[0][2])
    return [
        present.get(number, f"{prefix}{number:0{width}d}")
        for number in range(numbers[0], numbers[-1] + 1, step)
    ]
