# SPDX-License-Identifier: Apache-2.0
"""The rows that every kind of run writes: one per frame and object, one per event.

Their columns are described in `tables`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.correction.base import BoolMask
from lazyxmem_ros.data.sequences import Sample
from lazyxmem_ros.evaluation.metrics import boundary_f, region_similarity

NAN = float("nan")


class Measured(NamedTuple):
    """What the tracker said of one object on one frame; NaN where it said nothing."""

    uncertainty: float = NAN
    rate: float = NAN
    state: str = ""
    predicted_iou: float = NAN


class FrameRows:
    """Scores frames in order; remembers each object's first frame and its mask before.

    rows: the list that the rows are added to, a new one where None.
    """

    def __init__(self, rows: list[dict[str, Any]] | None = None) -> None:
        self.rows: list[dict[str, Any]] = [] if rows is None else rows
        self.first_index: dict[int, int] = {}
        self._previous: dict[int, BoolMask] = {}

    def introduce(self, sample: Sample) -> None:
        """Objects given on this frame begin here; known ones stay as they are."""
        for object_id in sample.given:
            self.first_index.setdefault(object_id, sample.index)

    def add(
        self,
        sample: Sample,
        labels: NDArray[np.uint16],
        measured: dict[int, Measured],
        *,
        held: bool,
        seconds: float,
    ) -> None:
        """Add a row per object. labels: as published, uint16 [H, W]; measured: by object id."""
        for object_id, first in self.first_index.items():
            mask = labels == object_id
            truth = truth_of(sample, object_id)
            before = self._previous.get(object_id)
            said = measured.get(object_id, Measured())
            self.rows.append(
                {
                    "index": sample.index,
                    "key": sample.key,
                    "stamp": sample.stamp,
                    "object": object_id,
                    "scored": truth is not None and sample.index > first,
                    "visible": None if truth is None else bool(truth.any()),
                    "j": overlap(mask, truth),
                    "f": NAN if truth is None else boundary_f(mask, truth),
                    "area": int(np.count_nonzero(mask)),
                    "stability": overlap(mask, before),
                    "uncertainty": said.uncertainty,
                    "uncertainty_rate": said.rate,
                    "predicted_iou": said.predicted_iou,
                    "state": said.state,
                    "held": held,
                    "seconds": seconds,
                }
            )
            self._previous[object_id] = mask


def truth_of(sample: Sample, object_id: int) -> BoolMask | None:
    """An object's true mask bool [H, W]; None where the frame is not annotated."""
    return None if sample.truth is None else sample.truth == object_id


def overlap(first: BoolMask | None, second: BoolMask | None) -> float:
    """IoU of two masks; NaN where one is missing."""
    if first is None or second is None:
        return NAN
    return region_similarity(first, second)


def event_row(
    frame: tuple[int, str, int],
    object_id: int,
    source: str,
    reason: str,
    *,
    applied: bool,
    outcome: str,
    delay: float = NAN,
    before: float = NAN,
    after: float = NAN,
) -> dict[str, Any]:
    """One request or correction; frame: its number, key and stamp (ns)."""
    index, key, stamp = frame
    return {
        "index": index,
        "key": key,
        "stamp": stamp,
        "object": object_id,
        "source": source,
        "reason": reason,
        "applied": applied,
        "outcome": outcome,
        "delay": delay,
        "j_before": before,
        "j_after": after,
    }
