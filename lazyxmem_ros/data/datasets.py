# SPDX-License-Identifier: Apache-2.0
"""Which sequences a path holds: DAVIS 2016 and 2017, LVOS, folders, videos, bags, the scene."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lazyxmem_ros.data.bag_storage import PACKED_SUFFIXES
from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.files import (
    IMAGE_SUFFIXES,
    ROS1_SUFFIX,
    ROS2_SUFFIXES,
    VIDEO_SUFFIXES,
    check_name,
    children,
    is_bag,
    suffix_of,
)
from lazyxmem_ros.data.label_maps import are_binary
from lazyxmem_ros.data.layouts.bags import open_bags
from lazyxmem_ros.data.layouts.folders import open_folder, open_tree
from lazyxmem_ros.data.layouts.options import DatasetOptions, Layout, check_of_use
from lazyxmem_ros.data.layouts.scene import SceneSequence
from lazyxmem_ros.data.layouts.videos import open_video
from lazyxmem_ros.data.samples import UnreadableSequence, VideoSequence
from lazyxmem_ros.data.slowness import Tell, silent
from lazyxmem_ros.data.stress import CutSequence, EveryNthFrame, TwinSequence
from lazyxmem_ros.data.views import RepeatedSequence


def open_dataset(
    path: Path, options: DatasetOptions | None = None, tell: Tell = silent
) -> list[VideoSequence]:
    """The sequences under `path`, by name; raises DatasetError where there are none.

    tell: gets a sentence now and then where opening takes long.

    With Layout.AUTO the layout is recognised: the word `scene`, a bag, a video, a tree with
    JPEGImages and Annotations (binary masks: DAVIS 2016; a *_meta.json: LVOS; else DAVIS 2017), or
    plain frames.
    """
    options = options or DatasetOptions()
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


def _open(path: Path, options: DatasetOptions, tell: Tell) -> list[VideoSequence]:
    layout = options.layout
    if layout is Layout.AUTO:
        layout = _recognise(path)
    if layout is Layout.SCENE:
        check_of_use(layout, options)
        return [SceneSequence()]
    if not path.exists():
        raise DatasetError(f"{path}: there is no such file or folder")
    if options.masks is not None and not options.masks.is_dir():
        raise DatasetError(f"{options.masks}: there is no such folder of label maps")
    if options.first_mask is not None and not options.first_mask.is_file():
        raise DatasetError(f"{options.first_mask}: there is no such mask")
    check_of_use(layout, options)
    if layout is Layout.BAG:
        return open_bags(path, options, tell)
    if layout is Layout.VIDEO:
        return [open_video(path, options)]
    if not path.is_dir():
        raise DatasetError(
            f"{path}: a file is read as a video ({', '.join(VIDEO_SUFFIXES)}) or as a bag "
            f"({', '.join((*ROS2_SUFFIXES, ROS1_SUFFIX))}), of which this is neither; say which "
            "with --layout, or give a folder of frames"
        )
    if layout is Layout.FOLDER:
        return [open_folder(path, options)]
    return open_tree(path, layout, options)


def _recognise(path: Path) -> Layout:
    if str(path) == Layout.SCENE.value and not path.exists():
        return Layout.SCENE
    if path.is_file():
        if suffix_of(path) in VIDEO_SUFFIXES:
            return Layout.VIDEO
        if suffix_of(path) in (*ROS2_SUFFIXES, ROS1_SUFFIX, *PACKED_SUFFIXES):
            return Layout.BAG
    if is_bag(path):
        return Layout.BAG
    if (path / "JPEGImages").is_dir():
        if any(path.glob("*_meta.json")):
            return Layout.LVOS
        binary = are_binary(_files_below(path / "Annotations"))
        return Layout.DAVIS2016 if binary else Layout.DAVIS2017
    if path.is_dir() and any(is_bag(child) for child in children(path)):
        return Layout.BAG
    return Layout.FOLDER


def _files_below(folder: Path) -> Iterator[Path]:
    """The image files in a folder and its folders, in natural order."""
    if not folder.is_dir():
        return
    for path in children(folder):
        if path.is_dir():
            yield from _files_below(path)
        elif suffix_of(path) in IMAGE_SUFFIXES:
            yield path


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
    for sequence in chosen:
        check_name(path, sequence.name)
    return chosen


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
