# SPDX-License-Identifier: Apache-2.0
"""Measures how good the tracking was, and how much help it took.

J and F follow the DAVIS benchmark (Perazzi et al., CVPR 2016; Pont-Tuset et al., 2017) and agree
with its evaluation code to the last digit, but for its decay of more than 256 frames, whose
borders overflow in uint8 there. Robustness, NoC and ACI follow Lazy-XMem (Vujasinović et
al., ACCV 2024). Masks are bool [H, W]; scores are floats in 0..1, one per evaluated frame, NaN
where a frame was not scored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.basics import by_width
from lazyxmem_ros.correction.base import BoolMask, surroundings
from lazyxmem_ros.evaluation.errors import MetricError

Scores = NDArray[np.float64]

BOUNDARY_TOLERANCE = 0.008
"""Tolerance of the boundary F-measure as a share of the image's diagonal (DAVIS)."""
RECALL_THRESHOLD = 0.5
"""A frame counts as recalled when its score lies above this (DAVIS)."""
DECAY_QUARTERS = 4
"""Decay compares the first with the last of so many parts of a sequence (DAVIS)."""
ROBUSTNESS_THRESHOLDS = (0.1, 0.25, 0.5)
"""IoUs at which robustness is measured (Lazy-XMem)."""


def region_similarity(prediction: NDArray[np.generic], truth: NDArray[np.generic]) -> float:
    """Region similarity J: intersection over union; 1 where both masks are empty.

    prediction, truth: [H, W], non-zero = object. Raises MetricError on different shapes.
    """
    predicted, true = _as_masks(prediction, truth)
    union = np.count_nonzero(predicted | true)
    if union == 0:
        return 1.0
    return np.count_nonzero(predicted & true) / union


def boundary_f(
    prediction: NDArray[np.generic],
    truth: NDArray[np.generic],
    *,
    tolerance: float = BOUNDARY_TOLERANCE,
) -> float:
    """Boundary F-measure: harmonic mean of the boundaries' precision and recall.

    A boundary pixel counts as matched when the other boundary passes within a disc around it whose
    radius is `tolerance` of the image diagonal, rounded up to whole pixels; from 1 on, `tolerance`
    is the radius itself. 1 where neither mask has a boundary, 0 where only one has.
    Raises MetricError on different shapes.
    """
    predicted, true = _as_masks(prediction, truth)
    radius = int(math.ceil(tolerance * math.hypot(*true.shape)) if tolerance < 1 else tolerance)
    box = surroundings(predicted | true, margin=radius + 1)
    if box is None:
        return 1.0
    # The boundary map looks one pixel right and down, and treats the image's last row and column
    # in its own way: map first, crop second.
    predicted_edge = _boundary_map(predicted)[box]
    true_edge = _boundary_map(true)[box]
    predicted_length = int(np.count_nonzero(predicted_edge))
    true_length = int(np.count_nonzero(true_edge))
    if predicted_length == 0 or true_length == 0:
        return float(predicted_length == true_length)
    disc = _disc(radius)
    near_predicted = cv2.dilate(predicted_edge, disc)
    near_true = cv2.dilate(true_edge, disc)
    precision = np.count_nonzero(predicted_edge & near_true) / predicted_length
    recall = np.count_nonzero(true_edge & near_predicted) / true_length
    if precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)


@dataclass(frozen=True)
class SequenceStatistics:
    """Mean, recall and decay of per-frame scores, as the DAVIS benchmark reports them."""

    mean: float
    recall: float
    decay: float


def sequence_statistics(scores: Sequence[float] | Scores) -> SequenceStatistics:
    """Summarise an object's scores over a sequence.

    recall: the share of frames above RECALL_THRESHOLD. decay: the mean of the first quarter minus
    that of the last. NaN scores are left out; all three are NaN where no frame was scored.
    """
    values = np.asarray(scores, dtype=np.float64)
    valid = values[~np.isnan(values)]
    if valid.size == 0:
        return SequenceStatistics(np.nan, np.nan, np.nan)
    # DAVIS shares the frame on a border between two quarters between both of them.
    borders = np.round(np.linspace(1, values.size, DECAY_QUARTERS + 1) + 1e-10).astype(int) - 1
    first = values[borders[0] : borders[1] + 1]
    last = values[borders[-2] : borders[-1] + 1]
    return SequenceStatistics(
        mean=float(valid.mean()),
        recall=float((valid > RECALL_THRESHOLD).mean()),
        decay=_mean(first) - _mean(last),
    )


def robustness(scores: Sequence[float] | Scores, threshold: float) -> float:
    """R@τ of one object: the share of its scored frames with IoU >= `threshold`.

    The dataset's value is the mean over objects. NaN where no frame was scored.
    """
    values = np.asarray(scores, dtype=np.float64)
    return _mean((values[~np.isnan(values)] >= threshold).astype(np.float64))


@dataclass(frozen=True)
class InteractionStatistics:
    """How much help a set of objects took.

    corrections: NoC, the number of the operator's corrections over all objects.
    per_1000_frames: corrections per 1000 frames of the sequences; NaN without frames.
    interval_mean, interval_median: frames between an object's successive corrections; NaN where no
        object was corrected twice.
    aci_mean, aci_sum: average cumulative interactions, over objects as mean and as sum.
    """

    corrections: int
    per_1000_frames: float
    interval_mean: float
    interval_median: float
    aci_mean: float
    aci_sum: float


@dataclass(frozen=True)
class ObjectInteractions:
    """The corrections of one object.

    frames: number of the object's frames, |F_o|: from its first to the end of its sequence.
    corrected_at: frame numbers of its corrections, 0 = the object's first frame, any order, a frame
        as often as it was corrected.
    """

    frames: int
    corrected_at: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise MetricError(f"an object needs at least one frame, got {self.frames}")
        outside = [index for index in self.corrected_at if not 0 <= index < self.frames]
        if outside:
            raise MetricError(f"corrections at {outside} lie outside 0..{self.frames - 1}")


def average_cumulative_interactions(interactions: ObjectInteractions) -> float:
    """ACI of one object: (1/|F_o|) Σ_i Σ_{j<=i} n_j, as on Lazy-XMem's poster.

    It is the number of corrections received so far, averaged over the object's frames: an early
    correction weighs more than a late one.
    """
    total = sum(interactions.frames - index for index in interactions.corrected_at)
    return total / interactions.frames


def interaction_statistics(
    objects: Mapping[object, ObjectInteractions] | Sequence[ObjectInteractions],
    *,
    sequence_frames: int,
) -> InteractionStatistics:
    """Summarise the corrections of all objects of one or more sequences.

    sequence_frames: frames of those sequences together, each counted once however many objects.
    """
    entries = list(objects.values()) if isinstance(objects, Mapping) else list(objects)
    corrections = sum(len(entry.corrected_at) for entry in entries)
    gaps = np.concatenate(
        [np.diff(np.sort(entry.corrected_at)) for entry in entries if len(entry.corrected_at) > 1]
        or [np.empty(0)]
    ).astype(np.float64)
    aci = np.array([average_cumulative_interactions(entry) for entry in entries])
    return InteractionStatistics(
        corrections=corrections,
        per_1000_frames=1000 * corrections / sequence_frames if sequence_frames else np.nan,
        interval_mean=_mean(gaps),
        interval_median=float(np.median(gaps)) if gaps.size else np.nan,
        aci_mean=_mean(aci),
        aci_sum=float(aci.sum()),
    )


def _as_masks(
    prediction: NDArray[np.generic], truth: NDArray[np.generic]
) -> tuple[BoolMask, BoolMask]:
    if prediction.shape != truth.shape or prediction.ndim != 2:
        raise MetricError(
            f"masks must be [H, W] and of one size, got {by_width(prediction.shape)} and "
            f"{by_width(truth.shape)}"
        )
    return prediction.astype(bool, copy=False), truth.astype(bool, copy=False)


def _boundary_map(mask: BoolMask) -> NDArray[np.uint8]:
    """A mask's one-pixel boundary, 0/1: where the right, lower or lower-right neighbour differs.

    On the last row only the right, on the last column only the lower neighbour counts.
    """
    boundary = np.zeros(mask.shape, dtype=bool)
    boundary[:-1, :-1] = (
        (mask[:-1, :-1] ^ mask[:-1, 1:])
        | (mask[:-1, :-1] ^ mask[1:, :-1])
        | (mask[:-1, :-1] ^ mask[1:, 1:])
    )
    boundary[-1, :-1] = mask[-1, :-1] ^ mask[-1, 1:]
    boundary[:-1, -1] = mask[:-1, -1] ^ mask[1:, -1]
    return boundary.view(np.uint8)


@lru_cache(maxsize=32)
def _disc(radius: int) -> NDArray[np.uint8]:
    """The pixels within `radius` of the centre, as a structuring element of side 2·radius + 1."""
    offsets = np.arange(-radius, radius + 1)
    return (offsets[:, None] ** 2 + offsets[None, :] ** 2 <= radius**2).astype(np.uint8)


def _mean(values: Scores) -> float:
    valid = values[~np.isnan(values)]
    return float(valid.mean()) if valid.size else float("nan")
