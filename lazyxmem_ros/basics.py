# SPDX-License-Identifier: Apache-2.0
"""What every room speaks of: masks, label maps, boxes, ids of objects and time.

It loads nothing but NumPy, so that a node can import it before PyTorch.
"""

from __future__ import annotations

import operator
import os
from argparse import ArgumentTypeError
from collections.abc import Collection
from pathlib import Path
from typing import Protocol, SupportsIndex

import numpy as np
from numpy.typing import NDArray

BoolMask = NDArray[np.bool_]
"""bool [H, W]: true where the object is."""

Labels = NDArray[np.uint16]
"""uint16 [H, W]: 0 is background, every other value an object's id."""

PixelBox = tuple[int, int, int, int]
"""(x0, y0, x1, y1), pixels, half-open."""

MAX_OBJECT_ID = 65_535
"""Object ids are 1..MAX_OBJECT_ID: label maps are 16 bits deep."""

MAX_LABEL_LENGTH = 80
"""Characters of an object's name, which goes out with every frame."""

TAKEN_BACK = "taken back"
"""So the message on `~/corrected` begins that says that a person's correction does not hold."""

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
"""Number formats in which networks compute; auto: bfloat16 where the processor is quick with it."""

SECOND = 1_000_000_000
"""One second in nanoseconds, the unit of stamps."""

MEBIBYTE = 1 << 20
"""In bytes: what settings and reports call MiB."""

MAX_SECONDS = 2**31 - 1
"""Of builtin_interfaces/Time, whose `sec` is an int32: 19 January 2038."""

MAX_STAMP = MAX_SECONDS * SECOND + SECOND - 1
"""The last stamp that a message can hold."""


class StampRangeError(ValueError):
    """A stamp that is no time, or that a message cannot hold; the text says which and why."""

    kind = "stamp"


class RosTime(Protocol):
    """A builtin_interfaces/Time, of rclpy or of rosbags."""

    sec: int
    nanosec: int


def stamp_of(time: RosTime) -> int:
    """A ROS time as nanoseconds since the epoch, 0 .. MAX_STAMP; raises StampRangeError."""
    return stamp_from(time.sec, time.nanosec)


def stamp_from(sec: int, nanosec: int) -> int:
    """The fields of a ROS time as nanoseconds since the epoch, 0 .. MAX_STAMP.

    Raises StampRangeError for a time before 1970, one after 2038, and for nanoseconds that make a
    second or more.
    """
    if not 0 <= nanosec < SECOND:
        raise StampRangeError(
            f"the stamp has {nanosec} nanoseconds; they must be less than a second "
            f"(0 .. {SECOND - 1})"
        )
    if not 0 <= sec <= MAX_SECONDS:
        raise StampRangeError(
            f"the stamp has {sec} seconds; they must be in 0 .. {MAX_SECONDS} (1970 to 2038)"
        )
    return int(sec) * SECOND + int(nanosec)


def stamp_fields(stamp: int) -> tuple[int, int]:
    """The `sec` and `nanosec` of a ROS time for nanoseconds since the epoch.

    Raises StampRangeError outside 0 .. MAX_STAMP, which a message cannot hold.
    """
    if not 0 <= stamp <= MAX_STAMP:
        raise StampRangeError(
            f"a message cannot hold the stamp {stamp} ns: it must be in 0 .. {MAX_STAMP} "
            "(1970 to 2038)"
        )
    return divmod(stamp, SECOND)


def user_path(text: str | os.PathLike[str]) -> Path:
    """A path as people give it, `~` expanded; raises FileNotFoundError for the home of nobody."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise FileNotFoundError(f"{text}: there is no such home directory") from error


def path_argument(text: str) -> Path:
    """The same, for argparse; raises ArgumentTypeError."""
    try:
        return user_path(text)
    except FileNotFoundError as error:
        raise ArgumentTypeError(str(error)) from error


def whole_number(value: SupportsIndex) -> int:
    """A whole number of any type as Python's own; raises TypeError for anything else.

    NumPy's overflow silently, and PyTorch refuses some of them beside others.
    """
    return int(operator.index(value))


def reason_of(error: BaseException) -> str:
    """What an error says, or its class: a MemoryError, say, has mostly no text."""
    return str(error) or type(error).__name__


def without(labels: Labels, object_ids: Collection[int]) -> Labels:
    """A label map in which some objects are background; the same array where there are none."""
    return (
        np.where(np.isin(labels, list(object_ids)), np.uint16(0), labels) if object_ids else labels
    )


def by_width(shape: tuple[int, ...]) -> str:
    """The shape of an array as people give sizes: width x height, then what else it has."""
    return "x".join(str(length) for length in (*shape[1::-1], *shape[2:]))
