# SPDX-License-Identifier: Apache-2.0
"""Bags: one, or a folder of them."""

from __future__ import annotations

from pathlib import Path

from lazyxmem_ros.data.bag_reader import BagReader
from lazyxmem_ros.data.bag_storage import METADATA
from lazyxmem_ros.data.errors import BagError, DamagedBagError, DatasetError
from lazyxmem_ros.data.files import ROS1_SUFFIX, ROS2_SUFFIXES, ZSTD_SUFFIXES, children, suffix_of
from lazyxmem_ros.data.layouts.options import DatasetOptions
from lazyxmem_ros.data.samples import VideoSequence
from lazyxmem_ros.data.sequences import BagSequence, UnreadableSequence
from lazyxmem_ros.data.slowness import Tell


def open_bags(path: Path, options: DatasetOptions, tell: Tell) -> list[VideoSequence]:
    """The bag that a path is, or those in a folder. Of several, one that cannot be read becomes an
    UnreadableSequence; of one alone, so does one that is damaged.
    """
    bags = _bags_under(path)
    _check_names(path, bags)
    spared = BagError if len(bags) > 1 else DamagedBagError
    return [_open_bag(bag, options, tell, spared) for bag in bags]


def is_bag(path: Path) -> bool:
    """Whether a path is a folder that is a bag, or a ROS 1 bag's file."""
    if not path.is_dir():
        return suffix_of(path) == ROS1_SUFFIX
    return (path / METADATA).is_file() or any(
        suffix_of(child) in ROS2_SUFFIXES for child in children(path)
    )


def _bags_under(path: Path) -> list[Path]:
    if path.is_file() or is_bag(path):
        return [path]
    return [child for child in children(path) if is_bag(child)]


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


def _bag_name(path: Path) -> str:
    if not path.is_file():
        return path.resolve().name
    return Path(path.stem).stem if suffix_of(path) in ZSTD_SUFFIXES else path.stem
