# SPDX-License-Identifier: Apache-2.0
"""The rows that every run writes, offline or through the ROS graph.

`RunLog.frames` has a row per frame and object. `index`, `key` and `stamp` name the frame;
`object` is the object's id. `scored` says whether the row counts (the frame is annotated and not
the object's first), `visible` whether the ground truth shows the object. `j` and `f` are the
scores, `area` is in pixels, `stability` is the IoU with the object's mask on the frame before: all
four are of the mask that was published. `uncertainty`, `uncertainty_rate`, `predicted_iou` and
`state` are of the one that the tracker found, before any correction that came at once changed it.
`held` says whether memory withheld the frame, and `seconds` is the time that tracker and corrector
took for it in one process; through the ROS graph neither is known, and `latency` is, the seconds
from the frame's image to its mask.

`RunLog.events` has a row per request or correction: the frame that it is about and `object`;
`source`, operator or pseudo; the `reason` for asking; `applied` and `outcome`; `delay`, in seconds
from the frame to the newest one when the answer came; `j_before` and `area_before`, the IoU of the
mask that was to be corrected and its pixels; `j_after`, the IoU of the corrected one.

As tables both begin with the run: `sequence`, `method` and `repeat`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lazyxmem_ros.correction.base import BoolMask
from lazyxmem_ros.data.samples import Sample
from lazyxmem_ros.evaluation.metrics import boundary_f, region_similarity

NAN = float("nan")
EVENT_COLUMNS = [
    *("sequence", "method", "repeat", "index", "key", "stamp", "object", "source", "reason"),
    *("applied", "outcome", "delay", "j_before", "area_before", "j_after"),
]


@dataclass
class RunLog:
    """The rows of a run so far (see above), and the faults of its input, one sentence each.

    seen: how many frames the sequence has had so far, which some containers only estimate before.
    read: how many of their images could be read.
    """

    frames: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    seen: int = 0
    read: int = 0

    def tables(
        self, *, sequence: str, method: str, repeat: int = 0
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Frames and events as tables."""
        run = {"sequence": sequence, "method": method, "repeat": repeat}
        frames = pd.DataFrame([{**run, **row} for row in self.frames])
        events = pd.DataFrame([{**run, **row} for row in self.events], columns=EVENT_COLUMNS)
        return frames, events


@dataclass(frozen=True)
class FrameName:
    """Which frame a row is about: its number, its key (see Sample) and its stamp (ns)."""

    index: int
    key: str
    stamp: int

    @classmethod
    def of(cls, sample: Sample) -> FrameName:
        """The name of a sample's frame."""
        return cls(sample.index, sample.key, sample.stamp)


class Measured(NamedTuple):
    """What the tracker said of one object on one frame; NaN where it said nothing."""

    uncertainty: float = NAN
    rate: float = NAN
    state: str = ""
    predicted_iou: float = NAN


class FrameRows:
    """Scores frames in order and adds their rows to the list `rows`.

    It remembers each object's first frame and its mask on the frame before.
    """

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows
        self.first_index: dict[int, int] = {}
        self._previous: dict[int, BoolMask] = {}

    def introduce(self, sample: Sample) -> None:
        """Begin the objects given on this frame; those known already stay as they are."""
        for object_id in sample.given:
            self.first_index.setdefault(object_id, sample.index)

    def add(
        self,
        sample: Sample,
        labels: NDArray[np.uint16],
        measured: dict[int, Measured],
        *,
        held: bool | None = None,
        seconds: float = NAN,
        latency: float = NAN,
    ) -> None:
        """Add a row per object. labels: as published, uint16 [H, W]; measured: by object id."""
        for object_id, first in self.first_index.items():
            mask = labels == object_id
            truth = truth_of(sample, object_id)
            before = self._previous.get(object_id)
            said = measured.get(object_id, Measured())
            self._rows.append(
                {
                    **asdict(FrameName.of(sample)),
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
                    "latency": latency,
                }
            )
            self._previous[object_id] = mask


def event_row(
    frame: FrameName,
    object_id: int,
    source: str,
    reason: str,
    *,
    applied: bool,
    outcome: str,
    delay: float = NAN,
    before: BoolMask | None = None,
    after: BoolMask | None = None,
    truth: BoolMask | None = None,
) -> dict[str, Any]:
    """The row of one request or correction. delay: seconds. before, after: the object's masks."""
    return {
        **asdict(frame),
        "object": object_id,
        "source": source,
        "reason": reason,
        "applied": applied,
        "outcome": outcome,
        "delay": delay,
        "j_before": overlap(before, truth),
        "area_before": NAN if before is None else int(np.count_nonzero(before)),
        "j_after": overlap(after, truth),
    }


def asked_of_people(events: pd.DataFrame) -> pd.DataFrame:
    """Those rows of `events` that are about the operator's help, given or not."""
    return events[events["source"] == "operator"]


def given_corrections(events: pd.DataFrame) -> pd.DataFrame:
    """Those of them that are corrections and were applied."""
    asked = asked_of_people(events)
    return asked[asked["applied"].astype(bool)]


def truth_of(sample: Sample, object_id: int) -> BoolMask | None:
    """An object's true mask bool [H, W]; None where the frame is not annotated."""
    return None if sample.truth is None else sample.truth == object_id


def overlap(first: BoolMask | None, second: BoolMask | None) -> float:
    """IoU of two masks bool [H, W]; NaN where one is missing."""
    if first is None or second is None:
        return NAN
    return region_similarity(first, second)
