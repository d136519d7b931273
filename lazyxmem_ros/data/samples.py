# SPDX-License-Identifier: Apache-2.0
"""What a sequence is: samples in order, whatever they are read from; and the rules they all keep.

What is wrong with a frame travels in its sample, so that one bad file costs one frame; what makes
a whole sequence unusable raises DatasetError or BagError.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.data.errors import DataError, DatasetError
from lazyxmem_ros.images.drawing import object_ids_in


@dataclass
class Sample:
    """One frame of a sequence.

    index: counts the sequence's frames from 0. key: file stem or stamp. stamp: ns.
    image: uint8 [H, W, 3] RGB, None where it is missing or unreadable.
    truth: label map uint16 [H, W], None where the frame is not annotated or its mask is unusable.
    given: masks (bool [H, W]) of the objects that begin on this frame.
    faults: what is wrong with the frame, one sentence each; where there is no image, the first of
        them says why, and the others are about masks.
    """

    index: int
    key: str
    stamp: int
    image: NDArray[np.uint8] | None = None
    truth: NDArray[np.uint16] | None = None
    given: dict[int, NDArray[np.bool_]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


class VideoSequence(Protocol):
    """A sequence that can be read again and again, and sent to another process."""

    @property
    def name(self) -> str:
        """Unique within the dataset."""

    @property
    def has_truth(self) -> bool:
        """Whether masks are there to score by and to answer from, not only to introduce objects."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All that it is read from: where one of them changes, it is another sequence."""

    @property
    def mask_advice(self) -> str:
        """How to give it masks, where it has none of an object."""

    def __len__(self) -> int:
        """Number of frames."""

    def samples(self) -> Iterator[Sample]:
        """The frames in order; raises DatasetError or BagError where no more can be read."""


class View:
    """A sequence made of another one, with that one's name and ground truth."""

    whole: VideoSequence

    @property
    def name(self) -> str:
        """That of the whole sequence."""
        return self.whole.name

    @property
    def has_truth(self) -> bool:
        """That of the whole sequence."""
        return self.whole.has_truth

    @property
    def files(self) -> tuple[Path, ...]:
        """Those of the whole sequence."""
        return self.whole.files

    @property
    def mask_advice(self) -> str:
        """That of the whole sequence."""
        return self.whole.mask_advice


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


def begin_late(sample: Sample, late: Collection[int]) -> set[int]:
    """Lets those of the objects `late` begin on a sample with an image that its ground truth shows;
    returns them.
    """
    if not late or sample.image is None or sample.truth is None:
        return set()
    shown = set(object_ids_in(sample.truth)) & set(late)
    sample.given.update({object_id: sample.truth == object_id for object_id in sorted(shown)})
    return shown


def jump_ahead(sample: Sample, following: object, newest: int) -> str:
    """Why a sample's stamp cannot be: after it what follows would be too early; "" where it can.

    newest: the stamp (ns) before, 0 where there is none.
    """
    if not isinstance(following, Sample) or not newest < following.stamp < sample.stamp:
        return ""
    ahead = (sample.stamp - following.stamp) / SECOND
    return f"its stamp is {ahead:.3f} s after the next frame's; it is left out"


def with_next(samples: Iterable[Sample]) -> Iterator[tuple[Sample, Sample | DataError | None]]:
    """Each sample with what comes next: another one, the fault by which reading ends, or the end.

    Raises the fault once all that is intact has come.
    """
    before: Sample | None = None
    try:
        for sample in samples:
            if before is not None:
                yield before, sample
            before = sample
    except DataError as fault:
        if before is not None:
            yield before, fault
        raise
    if before is not None:
        yield before, None


def check_size(sample: Sample) -> None:
    """Drops a mask of another size than its image."""
    if sample.image is None or sample.truth is None:
        return
    if sample.truth.shape != sample.image.shape[:2]:
        (mask_rows, mask_columns), (rows, columns) = sample.truth.shape, sample.image.shape[:2]
        sample.faults.append(
            f"frame {sample.key}: the mask is {mask_columns}x{mask_rows}, "
            f"the image {columns}x{rows}"
        )
        sample.truth = None


def introduce(sample: Sample, known: set[int]) -> None:
    """Objects that the truth shows for the first time are given on this frame."""
    if sample.image is None or sample.truth is None:
        return
    new = set(object_ids_in(sample.truth)) - known
    sample.given = {value: sample.truth == value for value in sorted(new)}
    known |= new
