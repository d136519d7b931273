# SPDX-License-Identifier: Apache-2.0
"""Which sequences a path holds: DAVIS 2016 and 2017, LVOS, plain folders, bags, the scene."""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lazyxmem_ros.data.bags import BagReader
from lazyxmem_ros.data.errors import BagError, DamagedBagError, DatasetError
from lazyxmem_ros.data.label_maps import are_binary, read_label_map
from lazyxmem_ros.data.sequences import (
    DEFAULT_RATE,
    BagSequence,
    FolderSequence,
    FrameFiles,
    RepeatedSequence,
    SceneSequence,
    UnreadableSequence,
    VideoSequence,
)

LVOS_RATE = 6.0
"""Frames per second of LVOS."""
REGULAR_SHARE = 0.8
"""Frames are numbered in equal steps, and so a larger one is a gap, where so many steps are."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
BAG_SUFFIXES = (".mcap", ".db3")


class Layout(enum.Enum):
    """How a dataset lies on the disk."""

    AUTO = "auto"
    DAVIS2016 = "davis2016"
    """JPEGImages/480p/NAME/*.jpg, Annotations/480p/NAME/*.png, binary masks."""
    DAVIS2017 = "davis2017"
    """The same with indexed masks."""
    LVOS = "lvos"
    """JPEGImages/NAME/*.jpg, Annotations/NAME/*.png; objects may begin later, masks have gaps."""
    FOLDER = "folder"
    """A folder of frames and one of label maps: its folder `masks`, or as told."""
    BAG = "bag"
    """A rosbag2 bag, sqlite3 or MCAP."""
    SCENE = "scene"
    """The generated scene."""


@dataclass(frozen=True)
class DatasetOptions:
    """What a path alone does not say.

    masks: folder of label maps (FOLDER), or of maps by stamp (BAG). first_mask: label map for the
    first frame (FOLDER and BAG without ground truth). image_topic, truth_topic: of bags.
    rate: frames per second of files, None = the layout's. sequences: only these names.
    passes: times that each is played, there and back (see RepeatedSequence).
    """

    layout: Layout = Layout.AUTO
    masks: Path | None = None
    first_mask: Path | None = None
    image_topic: str | None = None
    truth_topic: str | None = None
    rate: float | None = None
    sequences: tuple[str, ...] = ()
    passes: int = 1


def open_dataset(path: Path, options: DatasetOptions = DatasetOptions()) -> list[VideoSequence]:
    """The sequences under `path`, by name; raises DatasetError where there are none.

    With Layout.AUTO the layout is recognised: the word `scene`, a bag, a tree with JPEGImages and
    Annotations (binary masks: DAVIS 2016; a *_meta.json: LVOS; else DAVIS 2017), or plain frames.
    """
    chosen = _chosen(path, _open(path, options), options.sequences)
    if options.passes == 1:
        return chosen
    return [RepeatedSequence(sequence, options.passes) for sequence in chosen]


def _open(path: Path, options: DatasetOptions) -> list[VideoSequence]:
    layout = options.layout
    if layout is Layout.AUTO:
        layout = _recognise(path)
    if layout is Layout.SCENE:
        return [SceneSequence()]
    if not path.exists():
        raise DatasetError(f"{path}: there is no such file or folder")
    if options.masks is not None and not options.masks.is_dir():
        raise DatasetError(f"{options.masks}: there is no such folder of label maps")
    if options.first_mask is not None and not options.first_mask.is_file():
        raise DatasetError(f"{options.first_mask}: there is no such mask")
    if layout is Layout.BAG:
        return [_open_bag(bag, options) for bag in _bags_under(path)]
    if layout is Layout.FOLDER:
        return [_open_folder(path, options)]
    return _open_tree(path, layout, options)


def _recognise(path: Path) -> Layout:
    if str(path) == Layout.SCENE.value and not path.exists():
        return Layout.SCENE
    if path.suffix in BAG_SUFFIXES or _is_bag(path):
        return Layout.BAG
    if (path / "JPEGImages").is_dir():
        if list(path.glob("*_meta.json")) or list(path.glob("*_expression_meta.json")):
            return Layout.LVOS
        binary = are_binary(sorted((path / "Annotations").rglob("*.png")))
        return Layout.DAVIS2016 if binary else Layout.DAVIS2017
    if path.is_dir() and any(_is_bag(child) for child in path.iterdir()):
        return Layout.BAG
    return Layout.FOLDER


def _is_bag(path: Path) -> bool:
    return path.is_dir() and (
        (path / "metadata.yaml").is_file()
        or any(child.suffix in BAG_SUFFIXES for child in path.iterdir())
    )


def _open_tree(path: Path, layout: Layout, options: DatasetOptions) -> list[VideoSequence]:
    """JPEGImages[/RESOLUTION]/NAME and Annotations[/RESOLUTION]/NAME."""
    images, masks = _resolved(path / "JPEGImages"), _resolved(path / "Annotations")
    binary = layout is Layout.DAVIS2016
    rate = options.rate or (LVOS_RATE if layout is Layout.LVOS else DEFAULT_RATE)
    sequences: list[VideoSequence] = []
    for folder in sorted(child for child in images.iterdir() if child.is_dir()):
        frames = _pair_files(folder, masks / folder.name)
        sequence = FolderSequence(folder.name, frames, binary, rate)
        if layout is Layout.LVOS and _masks_only_introduce(sequence):
            sequence = replace(sequence, has_truth=False)
        sequences.append(sequence)
    return sequences


def _resolved(folder: Path) -> Path:
    """DAVIS has one more level, the resolution; 480p is what its figures are about."""
    if not folder.is_dir():
        raise DatasetError(f"{folder}: this folder of the layout is missing")
    if (folder / "480p").is_dir():
        return folder / "480p"
    if (folder / "Full-Resolution").is_dir():
        return folder / "Full-Resolution"
    return folder


def _masks_only_introduce(sequence: FolderSequence) -> bool:
    """Whether every mask brings a new object: then other objects' absence in it means nothing."""
    known: set[int] = set()
    masks = [files.mask for files in sequence.frames if files.mask is not None]
    if len(masks) == len(sequence.frames) > 1:
        return False
    for mask in masks:
        try:
            new = {int(value) for value in np.unique(read_label_map(mask))} - {0} - known
        except DatasetError:
            return False
        if not new:
            return False
        known |= new
    return True


def _open_folder(path: Path, options: DatasetOptions) -> VideoSequence:
    """Frames in `path` or `path`/frames|images; masks in options.masks or `path`/masks."""
    images = next((path / name for name in ("frames", "images") if (path / name).is_dir()), path)
    masks = options.masks or path / "masks"
    frames = list(_pair_files(images, masks))
    if options.first_mask is not None and frames and frames[0].mask is None:
        frames[0] = replace(frames[0], mask=options.first_mask)
    found = [files.mask for files in frames if files.mask is not None]
    # With one mask at the start there is nothing to score against.
    has_truth = len(found) > 1
    rate = options.rate or DEFAULT_RATE
    return FolderSequence(path.resolve().name, tuple(frames), are_binary(found), rate, has_truth)


def _pair_files(images: Path, masks: Path) -> tuple[FrameFiles, ...]:
    """Images and masks by their stems, in the order of the numbers in them, gaps included."""
    image_files = {
        file.stem: file for file in images.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES
    }
    mask_files = {file.stem: file for file in masks.glob("*.png")} if masks.is_dir() else {}
    stems = sorted(image_files.keys() | mask_files.keys(), key=_natural)
    return tuple(
        FrameFiles(stem, image_files.get(stem), mask_files.get(stem))
        for stem in _without_gaps(stems)
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


def _natural(stem: str) -> tuple[tuple[int, int, str], ...]:
    """frame2 before frame10."""
    parts = re.split(r"(\d+)", stem)
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)


def _bags_under(path: Path) -> list[Path]:
    if path.is_file() or _is_bag(path):
        return [path]
    return sorted(child for child in path.iterdir() if _is_bag(child))


def _open_bag(path: Path, options: DatasetOptions) -> VideoSequence:
    """A bag as a sequence; one that is damaged becomes an UnreadableSequence."""
    try:
        return _opened_bag(path, options)
    except DamagedBagError as error:
        return UnreadableSequence(_bag_name(path), str(error))


def _bag_name(path: Path) -> str:
    return path.stem if path.is_file() else path.resolve().name


def _opened_bag(path: Path, options: DatasetOptions) -> VideoSequence:
    with BagReader(path) as bag:
        truth_topic = options.truth_topic
        if truth_topic is not None and truth_topic not in bag.topics:
            known = ", ".join(bag.topics)
            raise BagError(f"{path}: no truth topic {truth_topic!r}; it has {known}")
        image_topic = bag.image_topic(options.image_topic, truth_topic=truth_topic)
        frames = bag.topics[image_topic].messages
    return BagSequence(
        _bag_name(path),
        path,
        image_topic,
        frames,
        truth_topic,
        options.masks,
        options.first_mask,
    )


def _chosen(
    path: Path, sequences: list[VideoSequence], names: Sequence[str]
) -> list[VideoSequence]:
    by_name = {sequence.name: sequence for sequence in sequences}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise DatasetError(
            f"{path}: no sequence {', '.join(unknown)}; it has {', '.join(by_name) or 'none'}"
        )
    chosen = [by_name[name] for name in names] if names else sequences
    if not chosen:
        raise DatasetError(f"{path}: no sequence found; is the layout right?")
    return chosen
