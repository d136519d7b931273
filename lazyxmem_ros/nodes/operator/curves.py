# SPDX-License-Identifier: Apache-2.0
"""The last minute of each object's uncertainty, by the images' stamps."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.nodes.operator.messages import ObjectState, Sample

CURVE_S = 60.0
SAMPLE_PERIOD_S = 0.2
MAX_SAMPLES = 20_000
"""Of all objects together: 66 of them for a minute."""


class Curves:
    """Samples of all objects in the order in which they came, counted from the first on."""

    def __init__(self) -> None:
        self.generation = 0
        """Raised where everything before is void."""
        self._samples: deque[Sample] = deque()
        self._forgotten = 0
        self._first = self._last = 0
        self._labels: dict[int, str] = {}
        """Of the objects of the last frame, by their ids."""

    @property
    def count(self) -> int:
        """How many samples of this generation there have been."""
        return self._forgotten + len(self._samples)

    def add(self, stamp: int, objects: Sequence[ObjectState]) -> None:
        """The objects of a frame; of a stamp (ns) before the last one: everything begins anew."""
        labels = {each.id: each.label for each in objects}
        others = {i for i, label in self._labels.items() if labels.get(i) != label}
        self._labels = labels
        if stamp < self._last or not self._first:
            self._restart(stamp)
        elif others:
            self._forget(others)
        elif self._samples and stamp - self._last < SAMPLE_PERIOD_S * SECOND:
            return
        self._last = stamp
        at = (stamp - self._first) / SECOND
        for each in objects:
            self._samples.append(Sample(at, each.id, each.uncertainty, each.predicted_iou))
        while self._samples and (
            at - self._samples[0].at > CURVE_S or len(self._samples) > MAX_SAMPLES
        ):
            self._samples.popleft()
            self._forgotten += 1

    def since(self, count: int) -> list[Sample]:
        """The samples after the first `count`, as far as they are kept."""
        skipped = max(0, count - self._forgotten)
        return [self._samples[i] for i in range(skipped, len(self._samples))]

    def _restart(self, stamp: int) -> None:
        self.generation += 1
        self._samples.clear()
        self._forgotten = 0
        self._first = stamp

    def _forget(self, ids: Collection[int]) -> None:
        """These objects are gone; others may get their ids."""
        self.generation += 1
        self._samples = deque(each for each in self._samples if each.object_id not in ids)
        self._forgotten = 0
