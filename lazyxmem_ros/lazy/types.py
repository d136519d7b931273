# SPDX-License-Identifier: Apache-2.0
"""What goes into and comes out of lazy tracking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lazyxmem_ros.basics import Labels
from lazyxmem_ros.correction.base import BoolMask, Prompt
from lazyxmem_ros.lazy.policy import Source, TrackState
from lazyxmem_ros.xmem import TrackerError


class StampError(TrackerError):
    """A stamp is not later than that of the frame before, or names no frame that is wanted."""


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
            None without a calibration, and on the first frame of all.
    """

    object_id: int
    label: str
    state: TrackState
    box: tuple[int, int, int, int] | None
    area: int
    uncertainty: float
    uncertainty_rate: float | None
    predicted_iou: float | None = None


@dataclass(frozen=True, eq=False)
class Request:
    """A correction is wanted.

    Attributes:
        object_id, label: of the object.
        source: whom to ask.
        reason: why, for people.
        uncertainty, uncertainty_rate: that called for it.
        stamp, index: of the frame that it is about (nanoseconds; number).
        deadline: nanoseconds, in the stamps' time: later it counts as given up; None: never.
        image: that frame, uint8 [H, W, 3], RGB; not a copy.
        mask: bool [H, W], the predicted mask.
        prompt: for a corrector: the tracker's click and the predicted mask (PSEUDO), or the
            predicted mask alone, to which a person's clicks are added (OPERATOR).
    """

    object_id: int
    label: str
    source: Source
    reason: str
    uncertainty: float
    uncertainty_rate: float | None
    stamp: int
    index: int
    deadline: int | None
    image: NDArray[np.uint8]
    mask: BoolMask
    prompt: Prompt


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
class Correction:
    """Corrected masks of one frame.

    Attributes:
        stamp: names the frame, nanoseconds.
        masks: object id -> bool [H, W], of the image's size. An operator's empty mask says that
            the object is not in view.
        source: who made them.
    """

    stamp: int
    masks: Mapping[int, BoolMask]
    source: Source = Source.OPERATOR


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of a correction.

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
