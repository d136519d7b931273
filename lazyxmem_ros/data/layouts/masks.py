# SPDX-License-Identifier: Apache-2.0
"""Masks in files of their own, beside the frames of a folder, a video or a bag."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.label_maps import read_label_map
from lazyxmem_ros.data.samples import Sample, check_size, with_next
from lazyxmem_ros.images import ImageError
from lazyxmem_ros.images.drawing import object_ids_in
from lazyxmem_ros.images.files import read_image_file

FILES_ADVICE = "give masks that show one with --masks or --first-mask"


def can_be_scored_by(
    masks: Sequence[Path], frames: int, *, binary: bool, introduced_again: bool = False
) -> bool:
    """Whether masks are ground truth: a single one is given to the tracker, and where every mask
    brings a new object, other objects' absence in it means nothing.

    masks: in the order of their frames, of which there are so many. introduced_again: so it is,
    too, where masks that bring a new object show known ones as well.
    """
    if len(masks) < 2:
        return False
    return binary or len(masks) >= frames or not _only_introduce(masks, again=introduced_again)


def _only_introduce(masks: Sequence[Path], *, again: bool) -> bool:
    known: set[int] = set()
    for mask in masks:
        try:
            shown = set(object_ids_in(read_label_map(mask, binary=False)))
        except DatasetError:
            return False
        if shown <= known or (shown & known and not again):
            return False
        known |= shown
    return True


def first_mask(given: Path | None, known: Path | None) -> Path | None:
    """The first frame's mask. known: the one among the masks of all frames, if it is there.

    Raises DatasetError where there is another one.
    """
    if known is not None and given is not None and not given.samefile(known):
        raise DatasetError(
            f"the first frame has the mask {known} already, beside which {given} would change "
            "nothing: leave out --first-mask, or move the other masks elsewhere"
        )
    return known or given


def naming_unused(
    samples: Iterable[Sample], unused: Mapping[int, Path | str], why: str
) -> Iterator[Sample]:
    """The samples; the last one has a fault for each mask that is left in `unused` then."""
    for sample, following in with_next(samples):
        if following is None:
            sample.faults.extend(f"{mask}: {why}" for mask in unused.values())
        yield sample


def read_into(
    sample: Sample, image: Path | None, mask: Path | None, *, binary: bool, guessed: bool
) -> None:
    """Read a frame's files into the sample; faults go there as well.

    binary, guessed: see `object_ids`.
    """
    if image is not None:
        try:
            sample.image = read_image_file(image)
        except ImageError as error:
            sample.faults.append(str(error))
    elif sample.image is None and not sample.faults:
        where = f", its mask is {mask}" if mask is not None else ""
        sample.faults.append(f"frame {sample.key}: the image is missing{where}")
    if mask is not None:
        try:
            sample.truth = read_label_map(mask, binary=binary, guessed=guessed)
        except DatasetError as error:
            sample.faults.append(str(error))
    check_size(sample)
