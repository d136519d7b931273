# SPDX-License-Identifier: Apache-2.0
"""Errors of reading and writing data; each message says what is wrong and what to do about it."""


class DataError(ValueError):
    """Base of everything that reading or writing data raises on bad input."""


class BagError(DataError):
    """A rosbag2 bag that cannot be read or written."""


class DamagedBagError(BagError):
    """A bag whose storage is cut short or damaged."""


class DatasetError(DataError):
    """A dataset, sequence or frame that cannot be read as its layout says."""
