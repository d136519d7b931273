# SPDX-License-Identifier: Apache-2.0
"""Masks in files of their own, beside the frames of a folder or a video."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.label_maps import read_label_map
from lazyxmem_ros.images.drawing import object_ids_in


def masks_only_introduce(files: Sequence[Path | None], *, again: bool = False) -> bool:
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
