# SPDX-License-Identifier: Apache-2.0
"""Views of a sequence that are harder than it is: fast motion, a cut, a twin that crosses.

Each wraps a sequence and is one itself, so they can be put into each other. Everything follows from
the sequence's own frames: the same view is the same, frame by frame, wherever it is made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.basics import SECOND, BoolMask
from lazyxmem_ros.data.errors import DataError, DatasetError
from lazyxmem_ros.data.samples import Sample, VideoSequence, View, begin_late, with_next

CUT_SECONDS = 2.0
"""How long a cut shows another sequence."""
CUT_PLACE = 0.5
"""Share of the frames before the cut."""
RATE_FRAMES = 10
"""From so many frames a sequence's rate is taken: of a recording some may be missing."""
TWIN_REACH = 0.5
"""Distance of the twin from the object on the first and on the last frame, in image widths."""
TWIN_EDGE = 1.0
"""Standard deviation, in pixels, of the blur of a twin's edge."""


@dataclass(frozen=True)
class EveryNthFrame(View):
    """Every n-th frame, at its own time: what moves is `step` times as fast from frame to frame.

    An object that begins on a frame that is left out begins on the next one that shows it; where
    there is none, that is a fault. What is wrong with masks of frames that are left out, or with
    masks of no frame, is a fault of the frame before.
    """

    whole: VideoSequence
    step: int

    def __post_init__(self) -> None:
        if self.step < 1:
            raise DatasetError(f"every n-th frame needs an n of at least 1, not {self.step}")

    def __len__(self) -> int:
        return -(-len(self.whole) // self.step)

    def samples(self) -> Iterator[Sample]:
        """The samples that are left, numbered anew. Raises DatasetError where an object would never
        begin, because masks only introduce objects.
        """
        late: dict[int, str] = {}
        for sample, following in with_next(self._left(late)):
            if following is None:
                sample.faults.extend(
                    f"frame {key}: object {i} begins on this frame, which is left out, and no mask "
                    "of those that are read shows it; choose another n"
                    for i, key in late.items()
                )
            yield sample

    def _left(self, late: dict[int, str]) -> Iterator[Sample]:
        """The samples that are left; leaves in `late` the objects that have not begun on them, with
        the frame on which they should have.
        """
        begun: set[int] = set()
        left: Sample | None = None
        try:
            for sample in self.whole.samples():
                if sample.index % self.step == 0:
                    if left is not None:
                        yield left
                    left = self._taken(sample, late)
                    begun |= left.given.keys()
                    continue
                if sample.given and not self.has_truth:
                    raise DatasetError(
                        f"{self.name}: an object begins on frame {sample.key}, which is left out, "
                        "and no later mask shows it; choose another n"
                    )
                for object_id in sample.given.keys() - begun:
                    late.setdefault(object_id, sample.key)
                assert left is not None  # the first one is
                left.faults.extend(sample.faults[sample.image is None :])
        except DataError:
            if left is not None:
                yield left
            raise
        if left is not None:
            yield left

    def _taken(self, sample: Sample, late: dict[int, str]) -> Sample:
        """A sample numbered anew, on which those of the `late` objects begin that it shows."""
        taken = replace(sample, index=sample.index // self.step, given=dict(sample.given))
        for object_id in begin_late(taken, late):
            del late[object_id]
        return taken


@dataclass(frozen=True)
class CutSequence(View):
    """A sequence into whose middle another one is cut for CUT_SECONDS: its objects are gone, and
    come back. The other one is played there and back, as often as it takes.
    """

    whole: VideoSequence
    other: VideoSequence

    @property
    def files(self) -> tuple[Path, ...]:
        """Those of both sequences."""
        return (*self.whole.files, *self.other.files)

    def __len__(self) -> int:
        return len(self.whole) + self._cut_length()

    def samples(self) -> Iterator[Sample]:
        """The samples; those after the cut with later stamps and numbers.

        On the frames of the cut the ground truth shows nothing. Raises DatasetError where there is
        no middle, or no time, to cut at.
        """
        place, period = self._place(), self._period
        cut = self._cut_length()
        if not cut:
            for _ in self.whole.samples():
                pass  # what cannot be read is the reason, and is raised
            raise DatasetError(
                f"{self.name}: nothing can be cut into {len(self.whole)} frame(s) whose times do "
                "not rise; choose others with --sequences, or leave out --cut"
            )
        delay = 0
        before: Sample | None = None
        size: tuple[int, int] | None = None
        for sample in self.whole.samples():
            if sample.index == place and before is not None:
                yield from self._cut(before, period, size)
                delay = cut * period
            later = sample.index >= place and delay > 0
            moved = replace(sample, index=sample.index + cut, stamp=sample.stamp + delay)
            yield moved if later else sample
            before = sample
            if size is None and sample.image is not None:  # the tracker takes no other afterwards
                size = sample.image.shape[0], sample.image.shape[1]

    def _place(self) -> int:
        return int(len(self.whole) * CUT_PLACE)

    @cached_property
    def _period(self) -> int:
        """The usual time from frame to frame, ns; 0 where there is none.

        Found once: a bag reads all of its ground truth before its first frame.
        """
        steps = np.diff(_first_stamps(self.whole, RATE_FRAMES))
        return int(np.median(steps)) if steps.size else 0

    def _cut_length(self) -> int:
        """Frames of the cut, at the whole sequence's rate."""
        period = self._period
        if period <= 0 or self._place() < 1:
            return 0
        return max(1, round(CUT_SECONDS * SECOND / period))

    def _cut(self, before: Sample, period: int, size: tuple[int, int] | None) -> Iterator[Sample]:
        """The cut's frames, in the size [H, W] of those before."""
        if size is None:
            raise DatasetError(
                f"frame {before.key}, after which to cut, and those before: no image"
            )
        faults: list[str] = []
        images = self._images(size, faults)
        for number in range(self._cut_length()):
            truth = np.zeros(size, np.uint16) if self.has_truth else None
            yield Sample(
                index=before.index + 1 + number,
                key=f"{before.key}_cut{number:03d}",
                stamp=before.stamp + (number + 1) * period,
                image=next(images),
                truth=truth,
                faults=faults if number == 0 else [],
            )

    def _images(self, size: tuple[int, int], faults: list[str]) -> Iterator[NDArray[np.uint8]]:
        """The other sequence's images [H, W, 3] of this size, there and back without an end.

        faults: takes what is wrong with those that it has not.
        """
        limit = self._cut_length()
        images = []
        for sample in self.other.samples():
            if sample.image is not None:
                images.append(_resized(sample.image, size))
            else:
                faults.extend(f"{self.other.name}: {fault}" for fault in sample.faults[:1])
            if len(images) == limit:
                break
        if not images:
            raise DatasetError(f"{self.other.name}: no image of it can be cut into {self.name}")
        order = [*range(len(images)), *range(len(images) - 2, 0, -1)]
        while True:
            yield from (images[place] for place in order)


@dataclass(frozen=True)
class TwinSequence(View):
    """A sequence with a twin of its first object: its mirror image, cut out of the same frame, that
    crosses from one side of it to the other, in front of everything.

    The ground truth loses what the twin covers. On frames that introduce objects it passes behind
    them. Where a frame is not annotated, the twin is as on the last one that is.
    """

    whole: VideoSequence
    reach: float = TWIN_REACH

    def __post_init__(self) -> None:
        if not self.whole.has_truth:
            raise DatasetError(
                f"{self.whole.name}: a twin is made of masks of every frame; it has none"
            )

    def __len__(self) -> int:
        return len(self.whole)

    def samples(self) -> Iterator[Sample]:
        """The samples with the twin in image and ground truth."""
        target: int | None = None
        side = 1.0
        cut_out: _CutOut | None = None
        for sample in self.whole.samples():
            if sample.image is None:
                yield sample
                continue
            if target is None and sample.given:
                target = min(sample.given)
                side = _roomier_side(sample.given[target])
            if target is not None and sample.truth is not None:
                cut_out = _CutOut.of(sample.image, sample.truth == target) or cut_out
            if cut_out is None or cut_out.mask.shape != sample.image.shape[:2]:
                yield sample
                continue
            done = sample.index / max(1, len(self) - 1)
            shift = round(side * self.reach * (1 - 2 * done) * sample.image.shape[1])
            yield _with_twin(sample, cut_out, shift)


@dataclass(frozen=True, eq=False)
class _CutOut:
    """An object's pixels [H, W, 3], its mask [H, W], and the middle column of its box."""

    image: NDArray[np.uint8]
    mask: BoolMask
    middle: float

    @classmethod
    def of(cls, image: NDArray[np.uint8], mask: BoolMask) -> _CutOut | None:
        """None where the mask is empty."""
        columns = np.flatnonzero(mask.any(0))
        if not columns.size:
            return None
        return cls(image, mask, (int(columns[0]) + int(columns[-1])) / 2)

    def mirrored(self, shift: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Image [H, W, 3] and opacity [H, W] of the mirror image, its box moved by `shift`."""
        height, width = self.mask.shape
        # Column x of the mirror image shows column 2 * middle + shift - x.
        turn = np.array([[-1, 0, 2 * self.middle + shift], [0, 1, 0]], np.float32)
        image = cv2.warpAffine(self.image, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
        mask = cv2.warpAffine(self.mask.astype(np.float32), turn, (width, height))
        return np.asarray(image, np.uint8), cv2.GaussianBlur(mask, (0, 0), TWIN_EDGE)


def _with_twin(sample: Sample, cut_out: _CutOut, shift: int) -> Sample:
    assert sample.image is not None
    image, opacity = cut_out.mirrored(shift)
    for mask in sample.given.values():
        opacity = np.where(mask, np.float32(0), opacity)
    share = opacity[..., None]
    drawn = (share * image + (1 - share) * sample.image).round().astype(np.uint8)
    truth = sample.truth
    if truth is not None:
        truth = np.where(opacity > 0.5, 0, truth).astype(np.uint16)
    return replace(sample, image=drawn, truth=truth)


def _roomier_side(mask: BoolMask) -> float:
    """1 where there is more room to the right of a mask, else -1."""
    middle = float(np.flatnonzero(mask.any(0)).mean())
    return 1.0 if middle < mask.shape[1] / 2 else -1.0


def _first_stamps(sequence: VideoSequence, count: int) -> list[int]:
    """The stamps (ns) of the first frames, as far as they can be read."""
    stamps: list[int] = []
    with contextlib.suppress(DataError):  # whoever reads the frames meets it, too
        for sample in sequence.samples():
            stamps.append(sample.stamp)
            if len(stamps) == count:
                break
    return stamps


def _resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    if image.shape[:2] == size:
        return image
    return np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)
