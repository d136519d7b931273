# SPDX-License-Identifier: Apache-2.0
"""Bags: one, or a folder of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lazyxmem_ros.data.bag_messages import pack_labels, unpack_labels
from lazyxmem_ros.data.bag_reader import BagReader
from lazyxmem_ros.data.errors import BagError, DamagedBagError, DatasetError
from lazyxmem_ros.data.files import (
    ZSTD_SUFFIXES,
    children,
    image_files,
    is_bag,
    suffix_of,
)
from lazyxmem_ros.data.label_maps import are_binary
from lazyxmem_ros.data.layouts.masks import naming_unused, read_into
from lazyxmem_ros.data.layouts.options import DatasetOptions
from lazyxmem_ros.data.samples import (
    Sample,
    UnreadableSequence,
    VideoSequence,
    check_size,
    introduce,
)
from lazyxmem_ros.data.slowness import Tell


@dataclass(frozen=True, kw_only=True)
class BagSequence:
    """A bag's images with ground truth from a mask topic, a folder of label maps, or none.

    truth_folder: label maps named by stamp in nanoseconds, `1700000000123456789.png`.
    first_mask: a label map for the first frame where there is no other. init_topic: label maps of
    objects on the frames on which they begin, where there is no ground truth. binary: whatever is
    not 0 in the ground truth or the first mask is object 1; else the maps themselves say it. keys:
    what frames are called, by their stamps; the others are called by these. label_maps: how many
    there are of the ground truth; None: they were not counted.
    """

    name: str
    path: Path
    image_topic: str
    frames: int
    truth_topic: str | None = None
    truth_folder: Path | None = None
    first_mask: Path | None = None
    init_topic: str | None = None
    binary: bool = False
    keys: tuple[tuple[int, str], ...] = ()
    label_maps: int | None = None
    mask_advice: str = "give masks that show one with --masks, --first-mask or --truth-topic"

    @property
    def has_truth(self) -> bool:
        """See VideoSequence. A single label map is given to the tracker."""
        known = self.truth_topic is not None or self.truth_folder is not None
        return known and self.label_maps != 1

    @property
    def files(self) -> tuple[Path, ...]:
        """See VideoSequence."""
        roots = (self.path, self.truth_folder, self.first_mask)
        return tuple(file for root in roots if root is not None for file in _files_under(root))

    def __len__(self) -> int:
        return self.frames

    def samples(self) -> Iterator[Sample]:
        """Reads the bag in one pass; masks are matched to images by their stamps."""
        unused: dict[int, Path | str] = {}
        return naming_unused(self._read(unused), unused, "no image has this stamp")

    def _read(self, unused: dict[int, Path | str]) -> Iterator[Sample]:
        """The frames; leaves in `unused` the masks that are of none: their files, or what they are
        called.
        """
        truth = self._truth()
        files = [labels for labels in truth.values() if isinstance(labels, Path)]
        for stamp, labels in truth.items():
            name = f"{self.truth_topic}, label map of {stamp} ns"
            unused[stamp] = labels if isinstance(labels, Path) else name
        binary, guessed = self.binary or are_binary(files), not self.binary
        begun = self._labels_on(self.init_topic)
        known: set[int] = set()
        keys = dict(self.keys)
        with BagReader(self.path) as bag:
            for index, (stamp, image) in enumerate(bag.images_or_faults(self.image_topic)):
                sample = Sample(index, keys.get(stamp, str(stamp)), stamp)
                if isinstance(image, str):
                    sample.faults.append(f"frame {stamp}: {image}")
                else:
                    sample.image = image
                unused.pop(stamp, None)
                _take_labels(sample, truth.get(stamp), binary=binary, guessed=guessed)
                annotated = sample.truth is not None
                if index == 0 and self.first_mask is not None:
                    if annotated:
                        sample.faults.append(
                            f"{self.first_mask}: its frame has a label map already"
                        )
                    else:
                        first_is_binary = self.binary or are_binary([self.first_mask])
                        _take_labels(sample, self.first_mask, binary=first_is_binary, guessed=False)
                elif not annotated:
                    _take_labels(sample, begun.get(stamp), binary=False, guessed=False)
                check_size(sample)
                introduce(sample, known)
                if not annotated:
                    sample.truth = None
                yield sample

    def _truth(self) -> Mapping[int, Path | bytes | str]:
        if self.truth_folder is not None:
            files = image_files(self.truth_folder)
            wrong = [file.name for stem, file in files.items() if not re.fullmatch(r"[0-9]+", stem)]
            if wrong:
                raise DatasetError(
                    f"{self.truth_folder}: label maps are named by stamp in nanoseconds, "
                    f"not {wrong[0]}"
                )
            found = {int(stem): file for stem, file in files.items()}
            if len(found) < len(files):
                raise DatasetError(f"{self.truth_folder}: two label maps are of one stamp")
            return found
        return self._labels_on(self.truth_topic, binary=self.binary or None)

    def _labels_on(
        self, topic: str | None, *, binary: bool | None = None
    ) -> dict[int, bytes | str]:
        """The label maps of a topic by stamp (ns), packed, or what is wrong with each."""
        found: dict[int, bytes | str] = {}
        if topic is None:
            return found
        with BagReader(self.path) as bag:
            try:
                for stamp, labels in bag.labels_or_faults(topic, binary=binary):
                    found[stamp] = (
                        f"{topic}: {labels}" if isinstance(labels, str) else pack_labels(labels)
                    )
            except DamagedBagError:
                pass  # what is intact counts; reading the images meets the damage, too
        return found


def open_bags(path: Path, options: DatasetOptions, tell: Tell) -> list[VideoSequence]:
    """The bag that a path is, or those in a folder. Of several, one that cannot be read becomes an
    UnreadableSequence; of one alone, so does one that is damaged.
    """
    bags = _bags_under(path)
    _check_names(path, bags)
    spared = BagError if len(bags) > 1 else DamagedBagError
    return [_open_bag(bag, options, tell, spared) for bag in bags]


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
        label_maps = None if truth_topic is None else bag.topics[truth_topic].messages
    if options.masks is not None:
        label_maps = len(image_files(options.masks))
    return BagSequence(
        name=_bag_name(path),
        path=path,
        image_topic=image_topic,
        frames=frames,
        truth_topic=truth_topic,
        truth_folder=options.masks,
        first_mask=options.first_mask,
        binary=options.binary,
        label_maps=label_maps,
    )


def _bag_name(path: Path) -> str:
    if not path.is_file():
        return path.resolve().name
    return Path(path.stem).stem if suffix_of(path) in ZSTD_SUFFIXES else path.stem


def _files_under(root: Path) -> list[Path]:
    """A file itself, or the files in a folder."""
    return [file for file in children(root) if file.is_file()] if root.is_dir() else [root]


def _take_labels(
    sample: Sample, labels: Path | bytes | str | None, *, binary: bool, guessed: bool
) -> None:
    """Give a sample its label map: from a file, packed, or the fault of one."""
    if isinstance(labels, Path):
        read_into(sample, None, labels, binary=binary, guessed=guessed)
    elif isinstance(labels, bytes):
        sample.truth = unpack_labels(labels)
    elif labels is not None:
        sample.faults.append(f"frame {sample.key}: {labels}")
