# SPDX-License-Identifier: Apache-2.0
"""Masks and label maps as run lengths: exact, small, and quick to read on both sides.

A run is a little-endian uint32: the value (0..255) in its upper 8 bits, the number of pixels that
carry it (1..2**24-1) in the lower 24. Runs follow the pixels row by row. `page/runs.js` is the
other side.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.basics import BoolMask, Labels

LENGTH_BITS = 24
MAX_LENGTH = (1 << LENGTH_BITS) - 1
MAX_VALUES = 255
"""Objects that one label map can show: the others have no value left."""


class RunsError(ValueError):
    """Bytes that are no run lengths of the expected size; the text says why."""


def pack_values(values: NDArray[np.uint8]) -> bytes:
    """The runs of an array of uint8 [H, W]."""
    flat = values.reshape(-1)
    if not flat.size:
        return b""
    starts = np.concatenate(([0], np.flatnonzero(flat[1:] != flat[:-1]) + 1))
    lengths = np.diff(starts, append=flat.size)
    runs = flat[starts].astype(np.uint32)
    if lengths.max() > MAX_LENGTH:
        pieces = -(-lengths // MAX_LENGTH)
        last = lengths - (pieces - 1) * MAX_LENGTH
        runs = np.repeat(runs, pieces)
        ends = np.cumsum(pieces) - 1
        lengths = np.full(len(runs), MAX_LENGTH)
        lengths[ends] = last
    return ((runs << LENGTH_BITS) | lengths.astype(np.uint32)).astype("<u4").tobytes()


def pack_mask(mask: BoolMask) -> bytes:
    """The runs of a mask bool [H, W], of the values 0 and 1."""
    return pack_values(mask.view(np.uint8) if mask.dtype == bool else mask.astype(np.uint8))


def pack_labels(labels: Labels) -> tuple[bytes, tuple[int, ...]]:
    """The runs of a label map uint16 [H, W], and the object ids that their values stand for.

    The value 1 is the first of the ids. Of more than MAX_VALUES objects those of the lowest ids are
    shown.
    """
    counts = np.bincount(labels.reshape(-1))
    ids = [int(i) for i in np.flatnonzero(counts) if i][:MAX_VALUES]
    table = np.zeros(max(len(counts), 1), np.uint8)
    table[ids] = np.arange(1, len(ids) + 1)
    return pack_values(table[labels]), tuple(ids)


def unpack_values(data: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The array uint8 [H, W] of `size` (H, W) that the runs describe; raises RunsError."""
    height, width = size
    if len(data) % 4:
        raise RunsError(f"{len(data)} bytes are no whole number of runs of 4 bytes")
    runs = np.frombuffer(data, "<u4")
    lengths = (runs & MAX_LENGTH).astype(np.int64)
    if len(lengths) and not lengths.all():
        raise RunsError("a run has the length 0")
    total = int(lengths.sum())
    if total != height * width:
        raise RunsError(f"the runs cover {total} pixels, the image has {height * width}")
    return np.repeat((runs >> LENGTH_BITS).astype(np.uint8), lengths).reshape(height, width)


def unpack_mask(data: bytes, size: tuple[int, int]) -> BoolMask:
    """The mask bool [H, W] of `size` (H, W) that the runs describe; raises RunsError."""
    mask: BoolMask = unpack_values(data, size) != 0
    return mask
