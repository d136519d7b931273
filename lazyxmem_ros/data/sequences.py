# SPDX-License-Identifier: Apache-2.0
"""The kinds of sequences that there are: from files, from a bag, or generated."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.data.bag_messages import decode_image, pack_labels, stamp_and_fault, unpack_labels
from lazyxmem_ros.data.bag_reader import BagReader
from lazyxmem_ros.data.errors import BagError, DamagedBagError, DatasetError
from lazyxmem_ros.data.files import children, image_files
from lazyxmem_ros.data.label_maps import are_binary, read_label_map
from lazyxmem_ros.data.pond import Scene, SceneConfig
from lazyxmem_ros.data.samples import Sample, check_size, introduce, with_next
from lazyxmem_ros.data.videos import DEFAULT_RATE, VideoFile
from lazyxmem_ros.images import ImageError
from lazyxmem_ros.images.files import read_image_file

FILES_ADVICE = "give masks that show one with --masks or --first-mask"


@dataclass(frozen=True)
class FrameFiles:
    """A frame's files; either may be absent."""

    key: str
    image: Path | None
    mask: Path | None


@dataclass(frozen=True)
class FolderSequence:
    """Frames and label maps as files. binary: any non-zero pixel is object 1.

    has_truth: False where the masks only introduce objects (LVOS and YouTube-VOS test sets).
    mask_advice: see VideoSequence.
    """

    name: str
    frames: tuple[FrameFiles, ...]
    binary: bool
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
            _read_into(sample, files, binary=self.binary)
            introduce(sample, known)
            if not self.has_truth:
                sample.truth = None
            yield sample


@dataclass(frozen=True)
class VideoFileSequence:
    """A video file's frames, with label maps as files.

    masks: by the number of their frame, from 0. binary, has_truth: see FolderSequence.
    """

    name: str
    video: VideoFile
    masks: tuple[tuple[int, Path], ...]
    binary: bool
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
        return _naming_unused(self._read(masks), masks, "no frame has this number (from 0 on)")

    def _read(self, masks: dict[int, Path]) -> Iterator[Sample]:
        """The frames; takes out of `masks` what it uses."""
        known: set[int] = set()
        for index, (stamp, image) in enumerate(self.video.stamped()):
            sample = Sample(index, f"{index:05d}", stamp, image)
            mask = masks.pop(index, None)
            _read_into(sample, FrameFiles(sample.key, None, mask), binary=self.binary)
            introduce(sample, known)
            if not self.has_truth:
                sample.truth = None
            yield sample


@dataclass(frozen=True)
class BagSequence:
    """A bag's images with ground truth from a mask topic, a folder of label maps, or none.

    truth_folder: label maps named by stamp in nanoseconds, `1700000000123456789.png`.
    first_mask: a label map for the first frame where there is no other. init_topic: label maps of
    objects on the frames on which they begin, where there is no ground truth. binary: whatever is
    not 0 in the ground truth or the first mask is object 1; else the maps themselves say it. keys:
    what frames are called, by their stamps; the others are called by these.
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
    mask_advice: str = "give masks that show one with --masks, --first-mask or --truth-topic"

    @property
    def has_truth(self) -> bool:
        """See VideoSequence."""
        return self.truth_topic is not None or self.truth_folder is not None

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
        return _naming_unused(self._read(unused), unused, "no image has this stamp")

    def _read(self, unused: dict[int, Path | str]) -> Iterator[Sample]:
        """The frames; leaves in `unused` the masks that are of none: their files, or what they are
        called.
        """
        truth = self._truth()
        files = [labels for labels in truth.values() if isinstance(labels, Path)]
        for stamp, labels in truth.items():
            name = f"{self.truth_topic}, label map of {stamp} ns"
            unused[stamp] = labels if isinstance(labels, Path) else name
        binary = self.binary or are_binary(files)
        begun = self._labels_on(self.init_topic)
        known: set[int] = set()
        keys = dict(self.keys)
        with BagReader(self.path) as bag:
            for index, message in enumerate(bag.messages(self.image_topic)):
                stamp, fault = stamp_and_fault(message.content)
                sample = Sample(index, keys.get(stamp, str(stamp)), stamp)
                try:
                    if fault:
                        raise BagError(fault)
                    sample.image = decode_image(message.content)
                except BagError as error:
                    sample.faults.append(f"frame {stamp}: {error}")
                unused.pop(stamp, None)
                _take_labels(sample, truth.get(stamp), binary=binary)
                annotated = sample.truth is not None
                if index == 0 and self.first_mask is not None:
                    if annotated:
                        sample.faults.append(
                            f"{self.first_mask}: its frame has a label map already"
                        )
                    else:
                        first_is_binary = self.binary or are_binary([self.first_mask])
                        _take_labels(sample, self.first_mask, binary=first_is_binary)
                elif not annotated:
                    _take_labels(sample, begun.get(stamp), binary=False)
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


@dataclass(frozen=True)
class SceneSequence:
    """The generated scene."""

    config: SceneConfig = field(default_factory=SceneConfig)
    name: str = "pond"
    has_truth: bool = True
    files: tuple[Path, ...] = ()
    mask_advice: str = "let objects be in it"

    def __len__(self) -> int:
        return self.config.frames

    def samples(self) -> Iterator[Sample]:
        """Renders one frame at a time."""
        known: set[int] = set()
        for frame in Scene(self.config):
            stamp = round(frame.time * SECOND)
            sample = Sample(frame.index, f"{frame.index:05d}", stamp, frame.image, frame.labels)
            introduce(sample, known)
            yield sample


@dataclass(frozen=True)
class UnreadableSequence:
    """Stands for a sequence that could not be opened: evaluating it says why, others go on."""

    name: str
    reason: str
    has_truth: bool = False
    files: tuple[Path, ...] = ()
    mask_advice: str = ""

    def __len__(self) -> int:
        return 0  # nobody knows

    def samples(self) -> Iterator[Sample]:
        """Raises DatasetError with the reason."""
        raise DatasetError(self.reason)


def _naming_unused(
    samples: Iterable[Sample], unused: Mapping[int, Path | str], why: str
) -> Iterator[Sample]:
    """The samples; the last one has a fault for each mask that is left in `unused` then."""
    for sample, following in with_next(samples):
        if following is None:
            sample.faults.extend(f"{mask}: {why}" for mask in unused.values())
        yield sample


def _files_under(root: Path) -> list[Path]:
    """A file itself, or the files in a folder."""
    return [file for file in children(root) if file.is_file()] if root.is_dir() else [root]


def _take_labels(sample: Sample, labels: Path | bytes | str | None, *, binary: bool) -> None:
    """Give a sample its label map: from a file, packed, or the fault of one."""
    if isinstance(labels, Path):
        _read_into(sample, FrameFiles(sample.key, None, labels), binary=binary)
    elif isinstance(labels, bytes):
        sample.truth = unpack_labels(labels)
    elif labels is not None:
        sample.faults.append(f"frame {sample.key}: {labels}")


def _read_into(sample: Sample, files: FrameFiles, *, binary: bool) -> None:
    """Read a frame's files into the sample; faults go there as well."""
    if files.image is not None:
        try:
            sample.image = read_image_file(files.image)
        except ImageError as error:
            sample.faults.append(str(error))
    elif sample.image is None and not sample.faults:
        where = f", its mask is {files.mask}" if files.mask is not None else ""
        sample.faults.append(f"frame {sample.key}: the image is missing{where}")
    if files.mask is not None:
        try:
            sample.truth = read_label_map(files.mask, binary=binary)
        except DatasetError as error:
            sample.faults.append(str(error))
    check_size(sample)
