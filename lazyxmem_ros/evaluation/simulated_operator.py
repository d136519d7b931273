# SPDX-License-Identifier: Apache-2.0
"""Simulates an operator, who answers a correction request from the ground truth."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.basics import SECOND, by_width
from lazyxmem_ros.correction.base import Prompt, box_of_mask, discs
from lazyxmem_ros.evaluation.errors import MetricError

MIN_BOX_SIDE = 2
"""Least side, in pixels, of a box that can be drawn on a screen."""
LEAST_ERROR = 3.0
"""Half the width, in pixels, of an error below which a person does not click again."""
DEALT_WITH = 1.5
"""Radius of the disc that a click deals with, in half widths of the error there."""


class ErrorSpot(NamedTuple):
    """The pixel (x, y) inside a wrong region that lies farthest from its edge.

    depth: pixels to the edge. missing: the object is there and was not predicted.
    """

    x: int
    y: int
    depth: float
    missing: bool


def largest_error(missing: NDArray[np.bool_], surplus: NDArray[np.bool_]) -> ErrorSpot | None:
    """The spot that a person would click on: the deepest in what is missing or too much.

    missing, surplus: bool [H, W]. Returns None where nothing is wrong.
    """
    spots = ErrorSpot(*_innermost(missing), True), ErrorSpot(*_innermost(surplus), False)
    largest = max(spots, key=lambda spot: spot.depth)  # of equal ones what is missing
    return largest if largest.depth > 0 else None


class Gesture(enum.Enum):
    """What the operator does on the screen; of an object out of view they say so by an empty mask.

    The paper's simulated user clicks negatively on a mask of nothing instead. A corrector may leave
    a rest of it then, which the tracker would learn as a person's word.
    """

    CLICK = "click"
    """One positive click in the middle of the object."""
    LARGEST_ERROR = "largest_error"
    """A click in the middle of the largest region that is wrong, missing or superfluous; with more
    than one, then in the middle of what is the largest but for that.
    """
    BOX = "box"
    """A box around the object, and a click in its middle."""
    MASK = "mask"
    """The object's outline, drawn by hand: the ground truth itself."""


@dataclass(frozen=True)
class OperatorConfig:
    """How quick and how exact the operator is.

    gesture: what an answer consists of.
    reaction_delay: seconds from the request to the answer, 0 = at once.
    click_noise: standard deviation, pixels, of every coordinate of clicks and boxes.
    seed: of the noise.
    clicks: most clicks of an answer by LARGEST_ERROR; the other gestures have one.
    """

    gesture: Gesture = Gesture.CLICK
    reaction_delay: float = 0.0
    click_noise: float = 0.0
    seed: int = 0
    clicks: int = 1

    def __post_init__(self) -> None:
        if self.clicks < 1:
            raise MetricError(f"clicks must be at least 1, got {self.clicks}")
        if self.seed < 0:
            raise MetricError(f"seed must be at least 0, got {self.seed}")
        for name in ("reaction_delay", "click_noise"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise MetricError(f"{name} must be a number >= 0, got {value}")

    @property
    def reaction_delay_ns(self) -> int:
        """The delay in nanoseconds, the unit of stamps."""
        return round(self.reaction_delay * SECOND)


@dataclass
class SimulatedOperator:
    """Turns (ground truth, prediction) into the prompt a person would give.

    Answers one request at a time: `answer_time` says when the answer to a request would come.
    """

    config: OperatorConfig = field(default_factory=OperatorConfig)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.config.seed)
        self._busy_until = 0
        self.asked_at = 0
        """Stamp (ns) of the last request."""

    def answer_time(self, asked_at: int) -> int:
        """Stamp (ns) at which the answer to a request of stamp `asked_at` (ns) is ready.

        A person works on one request after the other, so a second request waits for the first. What
        was asked before stamps went back is forgotten.
        """
        if asked_at < self.asked_at:
            self._busy_until = asked_at
        self.asked_at = asked_at
        self._busy_until = max(self._busy_until, asked_at) + self.config.reaction_delay_ns
        return self._busy_until

    def click(
        self, ground_truth: NDArray[np.generic], prediction: NDArray[np.generic]
    ) -> Prompt | None:
        """Answer a request with the configured gesture.

        ground_truth, prediction: [H, W], non-zero = object. Returns None where there is nothing to
        say: the object is not visible and the prediction is empty, or no pixel is wrong (for
        LARGEST_ERROR). An invisible object with a non-empty prediction gets an empty mask. A prompt
        with a mask and nothing else is the answer itself, not a prior. Raises MetricError on
        different shapes.
        """
        if ground_truth.shape != prediction.shape or ground_truth.ndim != 2:
            raise MetricError(
                "ground truth and prediction must be [H, W] and of one size, got "
                f"{by_width(ground_truth.shape)} and {by_width(prediction.shape)}"
            )
        true = ground_truth.astype(bool)
        predicted = prediction.astype(bool)
        if not true.any() and not predicted.any():
            return None
        gesture = self.config.gesture
        if gesture is Gesture.MASK or not true.any():
            return Prompt(mask=true)
        if gesture is Gesture.LARGEST_ERROR:
            return self._click_largest_error(true, predicted)
        point = self._noisy_middle(true)
        if gesture is Gesture.BOX:
            return Prompt(positive=point, box=self._noisy_box(true))
        return Prompt(positive=point)

    def _click_largest_error(
        self, true: NDArray[np.bool_], predicted: NDArray[np.bool_]
    ) -> Prompt | None:
        """Click in the middle of the largest error, then of the largest that is left."""
        missing, surplus = true & ~predicted, predicted & ~true
        clicks: dict[bool, list[NDArray[np.float32]]] = {True: [], False: []}
        for number in range(self.config.clicks):
            spot = largest_error(missing, surplus)
            if spot is None or (number and spot.depth < LEAST_ERROR):
                break
            clicks[spot.missing].append(self._noisy_point((spot.x, spot.y), true.shape))
            radius = int(DEALT_WITH * spot.depth)
            dealt_with = discs(true.shape, np.array([[spot.x, spot.y]]), radius)
            missing, surplus = missing & ~dealt_with, surplus & ~dealt_with
        if not clicks[True] and not clicks[False]:
            return None
        none = np.zeros((0, 2), np.float32)
        return Prompt(
            positive=np.concatenate([none, *clicks[True]]),
            negative=np.concatenate([none, *clicks[False]]),
        )

    def _noisy_middle(self, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        x, y, _ = _innermost(mask)
        return self._noisy_point((x, y), mask.shape)

    def _noisy_point(self, point: tuple[int, int], shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The point (x, y) with click noise, inside the image, as [1, 2]."""
        noisy = np.asarray(point, dtype=np.float64)
        noisy = noisy + self._random.normal(0.0, 1.0, 2) * self.config.click_noise
        return np.clip(noisy, 0, (shape[1] - 1, shape[0] - 1))[None].astype(np.float32)

    def _noisy_box(self, mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
        """The mask's box with click noise on its corners, at least two pixels wide and high."""
        corners = np.array(box_of_mask(mask), dtype=np.float64)
        corners += self._random.normal(0.0, 1.0, 4) * self.config.click_noise
        height, width = mask.shape
        x0, y0 = (np.clip(corners[:2], 0, (width - MIN_BOX_SIDE, height - MIN_BOX_SIDE))).round()
        x1 = np.clip(corners[2].round(), x0 + MIN_BOX_SIDE, width)
        y1 = np.clip(corners[3].round(), y0 + MIN_BOX_SIDE, height)
        return int(x0), int(y0), int(x1), int(y1)


def _innermost(mask: NDArray[np.bool_]) -> tuple[int, int, float]:
    """The pixel (x, y) farthest from the mask's edge, and how far; 0 where the mask is empty.

    Outside the image is outside the mask.
    """
    padded = np.pad(mask.astype(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), mask.shape)
    return int(column), int(row), float(depth.max())
