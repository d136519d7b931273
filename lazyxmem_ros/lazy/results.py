# SPDX-License-Identifier: Apache-2.0
"""What a tracker says of a frame (masks, tracks, what it asks and what has changed), and of what it
is told.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lazyxmem_ros.basics import Labels
from lazyxmem_ros.lazy.config import Source
from lazyxmem_ros.lazy.policy import TrackState
from lazyxmem_ros.lazy.record import Request


@dataclass(frozen=True)
class Track:
    """One object on one frame, as the tracker predicted it.

    Attributes:
        object_id: 1..65535.
        label: its name, "" if it has none.
        state: tracked, uncertain, lost or paused.
        box: (x0, y0, x1, y1), half-open pixels; None where the mask is empty.
        area: pixels of its mask.
        uncertainty: masked entropy, >= 0, about 1 where nothing is known.
        uncertainty_rate: its change since the frame before; None on the object's first frame.
        predicted_iou: the IoU with the truth to be expected, 0..1 (0 where the mask is empty);
            None without a calibration.
    """

    object_id: int
    label: str
    state: TrackState
    box: tuple[int, int, int, int] | None
    area: int
    uncertainty: float
    uncertainty_rate: float | None
    predicted_iou: float | None = None


@dataclass(frozen=True)
class StateChange:
    """An object's state is another than on the frame before (lost and found are among these)."""

    object_id: int
    label: str
    before: TrackState
    after: TrackState


@dataclass(frozen=True, eq=False)
class StepResult:
    """One frame's result.

    Attributes:
        stamp: nanoseconds. index: the frame's number.
        labels: uint16 [H, W].
        tracks: one per object, in the order of the tracker's object ids.
        requests: corrections wanted, the most uncertain object's first.
        changes: objects whose state changed.
        suppressed: object id -> why a correction was called for and why it is not asked for.
        expired: requests given up for want of an answer: (object id, source).
        held: the frame will stay out of memory, unless a correction is applied to it.
        caught_up: frames gone through again for late corrections that take effect with this
            frame; 0: none do.
        catching_up: past frames still to go through for them.
    """

    stamp: int
    index: int
    labels: Labels
    tracks: list[Track]
    requests: list[Request]
    changes: list[StateChange]
    suppressed: dict[int, str]
    expired: list[tuple[int, Source]]
    held: bool
    _entropy: Tensor = field(repr=False)
    caught_up: int = 0
    catching_up: int = 0

    def uncertainty_map(self) -> NDArray[np.float32]:
        """Normalised entropy of each pixel, float32 [H, W], 0..1; fetched from the device."""
        return self._entropy.float().cpu().numpy()


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of a correction, or of objects that were shown on a past frame.

    Attributes:
        applied: whether anything changed.
        reason: why not; or how, if it was not done simply as asked.
        stamp: the frame that it names, nanoseconds.
        object_ids: the objects that it was applied to.
        applied_stamp: the frame that it was applied to, nanoseconds; None if it was refused.
        labels: that frame's new label map, uint16 [H, W]; None if it was refused.
    """

    applied: bool
    reason: str
    stamp: int
    object_ids: tuple[int, ...] = ()
    applied_stamp: int | None = None
    labels: Labels | None = None
