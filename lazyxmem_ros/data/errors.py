# SPDX-License-Identifier: Apache-2.0
"""Errors of reading and writing data; each message says what is wrong and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN_REASONS = 2


class DataError(ValueError):
    """Base of everything that reading or writing data raises on bad input."""


class BagError(DataError):
    """A rosbag2 bag that cannot be read or written."""


class DamagedBagError(BagError):
    """A bag whose storage is cut short or damaged."""


class DatasetError(DataError):
    """A dataset, sequence or frame that cannot be read as its layout says."""


class OutputError(DataError):
    """Results that cannot be written where they are to go, or would replace somebody else's."""


class LabelMapError(DataError):
    """Values that are not those of a label map: a soft mask, a depth image, too many objects."""


def because(faults: Sequence[str]) -> str:
    """The first faults as the end of a sentence that they are the reason of; "" without any."""
    if not faults:
        return ""
    shown = list(dict.fromkeys(faults))[:SHOWN_REASONS]
    more = len(faults) - len(shown)
    return ", because " + "; ".join(shown) + (f"; and {more} more such faults" if more else "")
