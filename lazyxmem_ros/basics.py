# SPDX-License-Identifier: Apache-2.0
"""What every room speaks of: masks, label maps, boxes, ids of objects and time.

It loads nothing but NumPy, so that a node can import it before PyTorch.
"""

from __future__ import annotations

from typing import Protocol

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

SECOND = 1_000_000_000
"""One second in nanoseconds, the unit of stamps."""


class RosTime(Protocol):
    """A builtin_interfaces/Time, of rclpy or of rosbags."""

    sec: int
    nanosec: int


def stamp_of(time: RosTime) -> int:
    """A ROS time as nanoseconds since the epoch."""
    return int(time.sec) * SECOND + int(time.nanosec)


def by_width(shape: tuple[int, ...]) -> str:
    """The shape of an array as people give sizes: width x height, then what else it has."""
    return "x".join(str(length) for length in (*shape[1::-1], *shape[2:]))
