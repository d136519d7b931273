# SPDX-License-Identifier: Apache-2.0
"""What stays because a person said it (XMem++, Bekuzarov et al., ICCV 2023).

A frame on which somebody corrected or set an object's mask is *told*: it stays in memory for that
object's sake. Their number is bounded. Of each object the most distinct ones stay, by its mean key,
and not those that show a sliver of it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

SLIVER = 0.25
"""A told frame that shows less of an object than this share of what the largest one shows of it
does not stay: it would speak for the object with the voice of a good view."""


@dataclass(frozen=True, eq=False)
class View:
    """What a frame shows of an object.

    Attributes:
        size: tokens that show it.
        mean_key: of these, [C_k]; None where there are none.
    """

    size: int
    mean_key: Tensor | None


class ToldFrames:
    """Which frames stay, and for whom.

    Attributes:
        frames: index of a frame -> the objects for whose sake it stays; never of nobody.
    """

    def __init__(self, *, per_object: int, in_all: int) -> None:
        """`per_object`, `in_all`: frames that stay for an object's sake at most, and for all."""
        self._per_object = per_object
        self._in_all = in_all
        self.frames: dict[int, frozenset[int]] = {}

    def copy(self) -> ToldFrames:
        """The same, with a life of its own."""
        told = ToldFrames(per_object=self._per_object, in_all=self._in_all)
        told.frames = dict(self.frames)
        return told

    def of(self, object_id: int) -> list[int]:
        """The frames that stay for an object's sake, the oldest first."""
        return sorted(frame for frame, ids in self.frames.items() if object_id in ids)

    def tell(self, frame: int, object_ids: Collection[int]) -> None:
        """A person told of these objects, at least one, on a frame, which `settle` may let go."""
        self.frames[frame] = self.frames.get(frame, frozenset()) | frozenset(object_ids)

    def keep(self, frames: Collection[int]) -> None:
        """No other frames are there any more."""
        self.frames = {f: ids for f, ids in self.frames.items() if f in frames}

    def forget(self, object_id: int) -> set[int]:
        """Nothing stays for an object's sake any more; returns the frames that stayed for nobody
        else's.
        """
        alone = {frame for frame, ids in self.frames.items() if ids == {object_id}}
        self.frames = {f: ids - {object_id} for f, ids in self.frames.items() if f not in alone}
        return alone

    def settle(self, views: Mapping[int, Mapping[int, View]]) -> None:
        """Hold the frames within their bounds; one that nobody needs is told no more.

        `views`: object id -> told frame of the object -> what it shows of the object.
        """
        for object_id, seen in views.items():
            self._drop_slivers(object_id, seen)
            while len(frames := self.of(object_id)) > self._per_object:
                distinct = self._distinctness(object_id, seen)
                self._untell(min(frames, key=lambda f: (distinct[f], f)), object_id)
        while len(self.frames) > self._in_all:
            worth = dict.fromkeys(self.frames, 0.0)
            for object_id, seen in views.items():
                for frame, distance in self._distinctness(object_id, seen).items():
                    worth[frame] = max(worth[frame], distance)
            del self.frames[min(worth, key=lambda f: (worth[f], f))]

    def _drop_slivers(self, object_id: int, seen: Mapping[int, View]) -> None:
        """Frames that show little of an object do not stay for its sake. One that says that it is
        not to be seen does: that is no view of it.
        """
        largest = max((view.size for view in seen.values()), default=0)
        for frame, view in seen.items():
            if 0 < view.size < SLIVER * largest:
                self._untell(frame, object_id)

    def _distinctness(self, object_id: int, seen: Mapping[int, View]) -> dict[int, float]:
        """Told frame of an object -> distance of the object's mean key there from the nearest of
        the others; infinity where there is no other, 0 where the frame does not show it.
        """
        found = dict.fromkeys(self.of(object_id), 0.0)
        means = {f: key for f in found if (key := seen[f].mean_key) is not None}
        for frame, mean in means.items():
            others = [float((mean - other).norm()) for f, other in means.items() if f != frame]
            found[frame] = min(others, default=math.inf)
        return found

    def _untell(self, frame: int, object_id: int) -> None:
        self.frames[frame] -= {object_id}
        if not self.frames[frame]:
            del self.frames[frame]
