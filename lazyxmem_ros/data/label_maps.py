# SPDX-License-Identifier: Apache-2.0
"""Label maps that people and other programs made, and what their values mean.

A binary mask holds 0 and 255 only and shows one object, number 1. In any other map a value is an
object's id; of 8 bits, 255 marks pixels that belong to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lazyxmem_ros.data.errors import DatasetError

VOID = 255
_OPAQUE = {"LA": "L", "RGBA": "RGB"}
"""Pillow's modes with an alpha channel, which says nothing of objects, and those without."""


def read_label_map(path: Path, *, binary: bool = False) -> NDArray[np.uint16]:
    """A label map from an indexed, grey or 16-bit PNG; binary: every non-zero pixel becomes 1.

    Raises DatasetError for an unreadable file and for colour pictures that are not indexed.
    """
    picture = _read(path)
    values = np.asarray(picture)
    if values.ndim == 3:
        if not binary:
            raise DatasetError(
                f"{path}: a {picture.mode} picture is no label map; save it indexed, grey or 16-bit"
            )
        values = np.asarray(values.any(axis=2))
    return object_ids(values, binary=binary)


def object_ids(values: NDArray[Any], *, binary: bool) -> NDArray[np.uint16]:
    """Object ids uint16 [H, W] from a map's values, bool, uint8 or uint16 [H, W]."""
    if binary:
        return np.asarray(values != 0, np.uint16)
    labels = values.astype(np.uint16)
    if values.dtype == np.uint8:
        labels[labels == VOID] = 0
    return labels


def is_binary(values: NDArray[Any]) -> bool:
    """Whether values that are not all 0 are those of a binary mask."""
    return set(np.unique(values).tolist()) <= {0, VOID}


def are_binary(masks: Iterable[Path]) -> bool:
    """Whether the masks of a sequence are binary, as DAVIS 2016's: no palette, 0 and 255 only.

    The first that shows anything says it: objects may come later.
    """
    for mask in masks:
        try:
            picture = _read(mask)
        except DatasetError:
            continue  # named when its frame is read
        values = np.asarray(picture)
        if picture.mode == "P" or values.any():
            return picture.mode != "P" and _is_grey(values) and is_binary(values)
    return False


def _is_grey(values: NDArray[Any]) -> bool:
    """Whether a picture [H, W] or [H, W, 3] has no colours, each of which may be an object."""
    return values.ndim == 2 or bool((values == values[..., :1]).all())


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as picture:
            return picture.convert(_OPAQUE.get(picture.mode, picture.mode))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise DatasetError(f"{path}: the mask cannot be read: {error}") from error
