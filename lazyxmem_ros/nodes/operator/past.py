# SPDX-License-Identifier: Apache-2.0
"""The frames of the recent past, encoded, within bounds of time and memory."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.nodes.operator.pictures import EncodedFrame


class PastFrames:
    """Keeps frames by stamp; the oldest go where a bound is passed, but never the newest."""

    def __init__(self, *, max_seconds: float, max_bytes: int) -> None:
        """max_seconds: by the images' stamps, before the newest."""
        self._max_age = round(max_seconds * SECOND)
        self._max_bytes = max_bytes
        self._frames: deque[EncodedFrame] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def nbytes(self) -> int:
        """What is kept."""
        return self._bytes

    @property
    def newest(self) -> EncodedFrame | None:
        """The newest frame."""
        return self._frames[-1] if self._frames else None

    @property
    def oldest(self) -> EncodedFrame | None:
        """The oldest frame that is kept."""
        return self._frames[0] if self._frames else None

    def add(self, frame: EncodedFrame) -> None:
        """Keep a frame. One of an earlier stamp than the newest begins anew: so does the camera."""
        newest = self.newest
        if newest is not None and frame.stamp < newest.stamp:
            self.clear()
        elif newest is not None and frame.stamp == newest.stamp:
            self._bytes -= self._frames.pop().nbytes
        self._frames.append(frame)
        self._bytes += frame.nbytes
        while len(self._frames) > 1 and (
            self._bytes > self._max_bytes or frame.stamp - self._frames[0].stamp > self._max_age
        ):
            self._bytes -= self._frames.popleft().nbytes

    def find(self, stamp: int) -> EncodedFrame | None:
        """The frame of exactly this stamp."""
        return next((frame for frame in self._frames if frame.stamp == stamp), None)

    def near(self, stamp: int, step: int = 0) -> EncodedFrame | None:
        """The frame nearest to a stamp, or so many frames after that one (before, if negative)."""
        if not self._frames:
            return None
        stamps = [frame.stamp for frame in self._frames]
        index = bisect_left(stamps, stamp)
        if index == len(stamps) or (
            index > 0 and stamp - stamps[index - 1] <= stamps[index] - stamp
        ):
            index -= 1
        return self._frames[min(max(index + step, 0), len(stamps) - 1)]

    def clear(self) -> None:
        """Forget them all."""
        self._frames.clear()
        self._bytes = 0
