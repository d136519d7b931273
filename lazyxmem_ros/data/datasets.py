# SPDX-License-Identifier: Apache-2.0
"""Which sequences a path holds: DAVIS 2016 and 2017, LVOS, folders, videos, bags, the scene."""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lazyxmem_ros.data.bag_reader import BagReader
from lazyxmem_ros.data.bag_storage import METADATA, PACKED_SUFFIXES
from lazyxmem_ros.data.errors import BagError, DamagedBagError, DatasetError
from lazyxmem_ros.data.files import (
    IMAGE_SUFFIXES,
    ROS1_SUFFIX,
    ROS2_SUFFIXES,
    VIDEO_SUFFIXES,
    ZSTD_SUFFIXES,
    children,
    image_files,
    natural_order,
    suffix_of,
)
from lazyxmem_ros.data.label_maps import are_binary, read_label_map
from lazyxmem_ros.data.samples import VideoSequence
from lazyxmem_ros.data.sequences import (
    BagSequence,
    FolderSequence,
    FrameFiles,
    SceneSequence,
    UnreadableSequence,
    VideoFileSequence,
)
from lazyxmem_ros.data.slowness import Tell, silent
from lazyxmem_ros.data.stress import CutSequence, EveryNthFrame, TwinSequence
from lazyxmem_ros.data.videos import DEFAULT_RATE, VideoFile
from lazyxmem_ros.data.views import RepeatedSequence
from lazyxmem_ros.images.drawing import object_ids_in

LVOS_RATE = 6.0
"""Frames per second of LVOS."""
RESOLUTION = r"\d+p|Full-Resolution"
"""Names of the folders in a tree that are resolutions, not sequences."""
REGULAR_SHARE = 0.8
"""Frames are numbered in equal steps, and so a larger one is a gap, where so many steps are."""


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
    VIDEO = "video"
    """A video file, and a folder of label maps named by the number of their frame, from 0."""
    BAG = "bag"
    """A rosbag2 bag, sqlite3 or MCAP, or a ROS 1 bag."""
    SCENE = "scene"
    """The generated scene."""


OF_USE = {
    Layout.FOLDER: {"masks", "first_mask", "rate"},
    Layout.VIDEO: {"masks", "first_mask", "rate"},
    Layout.BAG: {"masks", "first_mask", "image_topic", "truth_topic"},
    Layout.SCENE: set(),
}
"""The options about files and topics that say something; about a tree it is the rate."""


@dataclass(frozen=True)
class DatasetOptions:
    """What a path alone does not say.

    masks: folder of label maps (FOLDER, VIDEO), or of maps by stamp (BAG). first_mask: label map
    for the first frame (FOLDER, VIDEO and BAG without ground truth). image_topic, truth_topic: of
    bags. rate: frames per second of files, None = the layout's. sequences: only these names.
    every_nth_frame, twin, cut, passes: views of each of them (see `data.stress`, RepeatedSequence),
    made in this order; cut: the name of the sequence that is cut into all others. binary: whatever
    is not 0 in a mask file is object 1, also where the masks themselves do not say so.
    """

    layout: Layout = Layout.AUTO
    masks: Path | None = None
    first_mask: Path | None = None
    image_topic: str | None = None
    truth_topic: str | None = None
    rate: float | None = None
    sequences: tuple[str, ...] = ()
    passes: int = 1
    binary: bool = False
    every_nth_frame: int = 1
    twin: bool = False
    cut: str | None = None


def open_dataset(
    path: Path, options: DatasetOptions = DatasetOptions(), tell: Tell = silent
) -> list[VideoSequence]:
    """The sequences under `path`, by name; raises DatasetError where there are none.

    tell: gets a sentence now and then where opening takes long.

    With Layout.AUTO the layout is recognised: the word `scene`, a bag, a video, a tree with
    JPEGImages and Annotations (binary masks: DAVIS 2016; a *_meta.json: LVOS; else DAVIS 2017), or
    plain frames.
    """
    known = _open(path, options, tell)
    chosen = _chosen(path, known, options.sequences)
    other = None
    if options.cut is not None:
        (other,) = _chosen(path, known, [options.cut])
        chosen = [one for one in chosen if one.name != other.name]
        if not chosen:
            raise DatasetError(f"{path}: {other.name} cannot be cut into itself; choose others")
    return [
        one if isinstance(one, UnreadableSequence) else _viewed(one, other, options)
        for one in chosen
    ]


def _viewed(
    sequence: VideoSequence, other: VideoSequence | None, options: DatasetOptions
) -> VideoSequence:
    """The view of a sequence that the options say. other: is cut into it."""
    if options.every_nth_frame != 1:
        sequence = EveryNthFrame(sequence, options.every_nth_frame)
    if options.twin:
        sequence = TwinSequence(sequence)
    if other is not None:
        sequence = CutSequence(sequence, other)
    if options.passes != 1:
        sequence = RepeatedSequence(sequence, options.passes)
    return sequence


def _open(path: Path, options: DatasetOptions, tell: Tell) -> list[VideoSequence]:
    layout = options.layout
    if layout is Layout.AUTO:
        layout = _recognise(path)
    if layout is Layout.SCENE:
        _check_of_use(layout, options)
        return [SceneSequence()]
    if not path.exists():
        raise DatasetError(f"{path}: there is no such file or folder")
    if options.masks is not None and not options.masks.is_dir():
        raise DatasetError(f"{options.masks}: there is no such folder of label maps")
    if options.first_mask is not None and not options.first_mask.is_file():
        raise DatasetError(f"{options.first_mask}: there is no such mask")
    _check_of_use(layout, options)
    if layout is Layout.BAG:
        bags = _bags_under(path)
        _check_names(path, bags)
        spared = BagError if len(bags) > 1 else DamagedBagError
        return [_open_bag(bag, options, tell, spared) for bag in bags]
    if layout is Layout.VIDEO:
        return [_open_video(path, options)]
    if not path.is_dir():
        raise DatasetError(
            f"{path}: a file is read as a video ({', '.join(VIDEO_SUFFIXES)}) or as a bag "
            f"({', '.join((*ROS2_SUFFIXES, ROS1_SUFFIX))}), of which this is neither; say which "
            "with --layout, or give a folder of frames"
        )
    if layout is Layout.FOLDER:
        return [_open_folder(path, options)]
    return _open_tree(path, layout, options)


def _check_of_use(layout: Layout, options: DatasetOptions) -> None:
    """Raise DatasetError for an option that would change nothing."""
    for name in ("masks", "first_mask", "image_topic", "truth_topic", "rate"):
        if getattr(options, name) is not None and name not in OF_USE.get(layout, {"rate"}):
            raise DatasetError(
                f"--{name.replace('_', '-')} says nothing about a dataset of the layout "
                f"{layout.value}: leave it out"
            )
    if options.masks is not None and options.truth_topic is not None:
        raise DatasetError("the ground truth of a bag is in --masks or --truth-topic, not both")


def _recognise(path: Path) -> Layout:
    if str(path) == Layout.SCENE.value and not path.exists():
        return Layout.SCENE
    if path.is_file():
        if suffix_of(path) in VIDEO_SUFFIXES:
            return Layout.VIDEO
        if suffix_of(path) in (*ROS2_SUFFIXES, ROS1_SUFFIX, *PACKED_SUFFIXES):
            return Layout.BAG
    if _is_bag(path):
        return Layout.BAG
    if (path / "JPEGImages").is_dir():
        if list(path.glob("*_meta.json")) or list(path.glob("*_expression_meta.json")):
            return Layout.LVOS
        binary = are_binary(_files_below(path / "Annotations"))
        return Layout.DAVIS2016 if binary else Layout.DAVIS2017
    if path.is_dir() and any(_is_bag(child) for child in children(path)):
        return Layout.BAG
    return Layout.FOLDER


def _is_bag(path: Path) -> bool:
    """Whether a path is a folder that is a bag, or a ROS 1 bag's file."""
    if not path.is_dir():
        return suffix_of(path) == ROS1_SUFFIX
    return (path / METADATA).is_file() or any(
        suffix_of(child) in ROS2_SUFFIXES for child in children(path)
    )


def _files_below(folder: Path) -> Iterator[Path]:
    """The image files in a folder and its folders, in natural order."""
    if not folder.is_dir():
        return
    for path in children(folder):
        if path.is_dir():
            yield from _files_below(path)
        elif suffix_of(path) in IMAGE_SUFFIXES:
            yield path


def _open_tree(path: Path, layout: Layout, options: DatasetOptions) -> list[VideoSequence]:
    """JPEGImages[/RESOLUTION]/NAME and Annotations[/RESOLUTION]/NAME."""
    images, masks = _resolved(path / "JPEGImages"), _resolved(path / "Annotations")
    binary = options.binary or layout is Layout.DAVIS2016
    rate = options.rate or (LVOS_RATE if layout is Layout.LVOS else DEFAULT_RATE)
    sequences: list[VideoSequence] = []
    for folder in (child for child in children(images) if child.is_dir()):
        frames = _pair_files(folder, masks / folder.name)
        advice = (
            f"put label maps that show one, named as the frames are, into {masks / folder.name}"
        )
        sequence = FolderSequence(folder.name, frames, binary, rate, mask_advice=advice)
        if not binary and _masks_only_introduce(
            [file.mask for file in frames], again=layout is Layout.LVOS
        ):
            sequence = replace(sequence, has_truth=False)
        sequences.append(sequence)
    return sequences


def _resolved(folder: Path) -> Path:
    """DAVIS has one more level, the resolution; 480p is what its figures are about."""
    if not folder.is_dir():
        raise DatasetError(
            f"{folder}: this folder of the layout is missing; give the folder that holds "
            "JPEGImages and Annotations, or with --layout folder one of frames"
        )
    found = [child.name for child in children(folder) if child.is_dir()]
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


def _masks_only_introduce(files: Sequence[Path | None], *, again: bool = False) -> bool:
    """Whether every mask brings a new object: then other objects' absence in it means nothing.

    files: the mask of each frame, None where it has none. again: so it is, too, where masks show
    objects that are known, and where there is but one mask.
    """
    known: set[int] = set()
    masks = [file for file in files if file is not None]
    if len(masks) == len(files) > 1 or (len(masks) < 2 and not again):
        return False
    for mask in masks:
        try:
            shown = set(object_ids_in(read_label_map(mask, binary=False)))
        except DatasetError:
            return False
        if shown <= known or (shown & known and not again):
            return False
        known |= shown
    return True


def _open_folder(path: Path, options: DatasetOptions) -> VideoSequence:
    """Frames in `path` or `path`/frames|images; masks in options.masks or `path`/masks."""
    images = next((path / name for name in ("frames", "images") if (path / name).is_dir()), path)
    masks = options.masks or path / "masks"
    first = [] if options.first_mask is None else [options.first_mask]
    frames = list(_pair_files(images, masks, besides=first))
    if not frames:
        raise DatasetError(f"{images}: no images ({', '.join(IMAGE_SUFFIXES)})")
    frames[0] = replace(frames[0], mask=_first_mask(options, frames[0].mask))
    found = [files.mask for files in frames if files.mask is not None]
    rate = options.rate or DEFAULT_RATE
    binary = options.binary or are_binary(found)
    # With one mask at the start there is nothing to score against.
    introduced = not binary and _masks_only_introduce([files.mask for files in frames])
    has_truth = len(found) > 1 and not introduced
    return FolderSequence(path.resolve().name, tuple(frames), binary, rate, has_truth)


def _first_mask(options: DatasetOptions, known: Path | None) -> Path | None:
    """The first frame's mask. known: the one among the masks of all frames, if it is there.

    Raises DatasetError where there is another one.
    """
    given = options.first_mask
    if known is not None and given is not None and not given.samefile(known):
        raise DatasetError(
            f"the first frame has the mask {known} already, beside which {given} would change "
            "nothing: leave out --first-mask, or move the other masks elsewhere"
        )
    return known or given


def _open_video(path: Path, options: DatasetOptions) -> VideoSequence:
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
    first = _first_mask(options, masks.get(0))
    if first is not None:
        masks[0] = first
    entries = tuple(sorted(masks.items()))
    binary = options.binary or are_binary(mask for _, mask in entries)
    files = [masks.get(number) for number in range(video.frames)]
    introduced = not binary and _masks_only_introduce(files)
    has_truth = len(entries) > 1 and not introduced
    return VideoFileSequence(path.stem, video, entries, binary, has_truth)


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


def _bags_under(path: Path) -> list[Path]:
    if path.is_file() or _is_bag(path):
        return [path]
    return [child for child in children(path) if _is_bag(child)]


def _check_names(path: Path, bags: list[Path]) -> None:
    """Raise DatasetError where two of the bags in a folder are sequences of one name."""
    found: dict[str, Path] = {}
    for bag in bags:
        other = found.setdefault(_bag_name(bag), bag)
        if other is not bag:
            raise DatasetError(
                f"{path}: {other.name} and {bag.name} have one name, by "
                "which results are kept; rename one of them, or move it elsewhere"
            )


def _open_bag(
    path: Path, options: DatasetOptions, tell: Tell, spared: type[BagError]
) -> VideoSequence:
    """A bag as a sequence; one that raises `spared` becomes an UnreadableSequence."""
    try:
        return _opened_bag(path, options, tell)
    except spared as error:
        return UnreadableSequence(_bag_name(path), str(error))


def _bag_name(path: Path) -> str:
    if not path.is_file():
        return path.resolve().name
    return Path(path.stem).stem if suffix_of(path) in ZSTD_SUFFIXES else path.stem


def _opened_bag(path: Path, options: DatasetOptions, tell: Tell) -> VideoSequence:
    with BagReader(path, tell) as bag:
        truth_topic = options.truth_topic
        if truth_topic is not None and truth_topic not in bag.topics:
            known = ", ".join(bag.topics) or "none"
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
        binary=options.binary,
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
    chosen = [by_name[name] for name in dict.fromkeys(names)] if names else sequences
    if not chosen:
        raise DatasetError(f"{path}: no sequence found; is the layout right?")
    return chosen
