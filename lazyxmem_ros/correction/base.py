# SPDX-License-Identifier: Apache-2.0
"""What every corrector takes and gives: an image and prompts in, one mask per prompt out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lazyxmem_ros.basics import BoolMask, PixelBox

Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1), pixels, half-open: PixelBox where it is of whole pixels."""


class CorrectorError(RuntimeError):
    """A corrector cannot be made or cannot do its work; the message says what to do."""


class PromptError(ValueError):
    """A prompt cannot be used with this image; the message says what is wrong and what to send."""


def _points(value: ArrayLike, name: str) -> NDArray[np.float32]:
    try:
        points = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise PromptError(f"{name} points must be numbers (x, y): {error}") from error
    if points.size == 0:
        return np.zeros((0, 2), np.float32)
    if points.ndim == 1 and points.shape[0] == 2:
        points = points[None]
    if points.ndim != 2 or points.shape[1] != 2:
        raise PromptError(
            f"{name} points have shape {points.shape}; send rows of (x, y), that is shape [P, 2]"
        )
    return points


@dataclass(frozen=True, eq=False)
class Prompt:
    """What is known of one object in one image.

    Attributes:
        positive: float32 [P, 2], (x, y) in pixels, points on the object.
        negative: float32 [N, 2], (x, y) in pixels, points off the object.
        box: (x0, y0, x1, y1) in pixels, half-open, around the object; or None.
        mask: bool [H, W], or None. For a corrector it is the prior: where the object was believed
            to be before.
        prior_iou: the overlap with the truth, 0..1, that the prior is expected to have; None where
            nobody knows. Only a corrector that was trained to heed it does.

    Anything that NumPy turns into these is accepted. Raises PromptError where it cannot.
    Whether it fits an image is checked by `validate_fit`, whether a corrector can use it, by
    `validate_prompt`.

    """

    positive: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    negative: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 2), np.float32))
    box: Box | None = None
    mask: BoolMask | None = None
    prior_iou: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "positive", _points(self.positive, "positive"))
        object.__setattr__(self, "negative", _points(self.negative, "negative"))
        if self.box is not None:
            try:
                x0, y0, x1, y1 = (float(value) for value in self.box)
            except (TypeError, ValueError) as error:
                raise PromptError(
                    f"a box is four numbers (x0, y0, x1, y1), not {self.box!r}"
                ) from error
            object.__setattr__(self, "box", (x0, y0, x1, y1))
        if self.mask is not None:
            mask = np.asarray(self.mask)
            if mask.ndim != 2:
                raise PromptError(f"a mask is [H, W], not of shape {mask.shape}")
            object.__setattr__(self, "mask", mask if mask.dtype == np.bool_ else mask != 0)
        if self.prior_iou is not None and not 0 <= self.prior_iou <= 1:
            raise PromptError(f"prior_iou is an overlap from 0 to 1, not {self.prior_iou}")

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing: there is neither a click nor a box nor a mask."""
        return self.mask is None and not self._points_at_something

    @property
    def is_only_mask(self) -> bool:
        """Whether it is a mask with neither a click nor a box.

        A person who draws a whole mask means it as it is; one that comes with clicks or a box is
        what those start from.
        """
        return self.mask is not None and not self._points_at_something

    @property
    def _points_at_something(self) -> bool:
        return len(self.positive) + len(self.negative) > 0 or self.box is not None

    def about(self, mask: BoolMask, prior_iou: float | None) -> Prompt:
        """The same prompt, given by someone who saw this mask bool [H, W], as a corrector needs it.

        Clicks say what is wrong with the mask that was seen, so that becomes their prior. A box
        says where the whole object is: a lost track's mask beside it would only mislead. A mask of
        the prompt's own stays.
        """
        if self.box is not None or self.mask is not None:
            return self
        return replace(self, mask=mask, prior_iou=prior_iou)


@dataclass(frozen=True, eq=False)
class Refinement:
    """A corrector's answer to one prompt.

    Attributes:
        mask: bool [H, W], of the image's size.
        score: 0 to 1: the predicted IoU or the corrector's own confidence; 0 where it failed
            and gives back what it was given.

    """

    mask: BoolMask
    score: float


def objection(score: float, prior_iou: float | None) -> str:
    """Why a mask that the tracker asked for on its own is not taken; empty where it is.

    Nobody looks at a pseudo-correction before it is applied, so the corrector must expect more of
    its mask (an IoU of `score`) than the tracker does of its own, if it expects anything.
    """
    if prior_iou is None or score > prior_iou:
        return ""
    return f"the corrector expects no more of its mask ({score:.2f}) than of the tracker's"


@runtime_checkable
class Corrector(Protocol):
    """(image, prompts) -> masks. Implementations keep no state that changes their answers."""

    name: str

    def refine(
        self,
        image: NDArray[np.uint8],
        prompts: Sequence[Prompt],
        *,
        image_key: Hashable | None = None,
    ) -> list[Refinement]:
        """Segments one object per prompt.

        Args:
            image: uint8 [H, W, 3], RGB.
            prompts: one per object.
            image_key: names the image: the same key promises the same image, so that what is
                computed once per image need not be computed again.

        Returns:
            One refinement per prompt, in their order.

        Raises:
            PromptError: an image or prompt that cannot be used; nothing was computed.
            CorrectorError: the corrector itself failed.

        """
        ...


def validate_image(image: NDArray[np.uint8]) -> tuple[int, int]:
    """Returns the size (H, W) of an RGB image uint8 [H, W, 3]; raises PromptError for others."""
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3:
        shape = getattr(image, "shape", None)
        raise PromptError(f"the image must be an RGB array [H, W, 3], not of shape {shape}")
    if image.dtype != np.uint8:
        raise PromptError(f"the image must be uint8, not {image.dtype}")
    height, width = image.shape[:2]
    if height == 0 or width == 0:
        raise PromptError(f"the image is empty ({width}x{height})")
    return height, width


def _validate_points(points: NDArray[np.float32], name: str, size: tuple[int, int]) -> None:
    height, width = size
    x, y = points[:, 0], points[:, 1]
    # Pixel centres are whole numbers, so the image reaches half a pixel beyond the outer ones.
    inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
    if not inside.all():  # NaN compares false, so it is caught too
        bad = points[~inside][0]
        raise PromptError(
            f"{name} point ({bad[0]:g}, {bad[1]:g}) lies outside the {width}x{height} image; "
            f"send x within 0..{width - 1} and y within 0..{height - 1}"
        )


def _validate_box(box: Box, size: tuple[int, int]) -> None:
    height, width = size
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise PromptError(
            f"box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) is empty or reaches beyond the edge: it is "
            f"not a box within the {width}x{height} image; "
            f"send (x0, y0, x1, y1) with 0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= {height}"
        )


def validate_fit(prompt: Prompt, size: tuple[int, int]) -> None:
    """Raises PromptError unless points, box and mask fit an image of `size` (H, W)."""
    height, width = size
    _validate_points(prompt.positive, "positive", size)
    _validate_points(prompt.negative, "negative", size)
    if prompt.box is not None:
        _validate_box(prompt.box, size)
    if prompt.mask is not None and prompt.mask.shape != (height, width):
        mask_height, mask_width = prompt.mask.shape
        raise PromptError(
            f"the mask is {mask_width}x{mask_height} but the image {width}x{height}; "
            "send a mask of the image's size"
        )


def validate_prompt(prompt: Prompt, size: tuple[int, int]) -> None:
    """Raises PromptError unless the prompt says where an object is in an image of `size` (H, W).

    Beside fitting the image, a prompt needs a positive point, a box or a prior mask with at least
    one pixel; negative points alone do not say where an object is.
    """
    validate_fit(prompt, size)
    has_prior = prompt.mask is not None and bool(prompt.mask.any())
    if len(prompt.positive) == 0 and prompt.box is None and not has_prior:
        what = "has only negative points" if len(prompt.negative) else "is empty"
        raise PromptError(
            f"the prompt {what}; send a positive point, a box or a prior mask with at least "
            "one pixel"
        )


def pixels_of(points: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.intp]:
    """The pixels under validated points: int [P, 2], (x, y), within an image of `size` (H, W)."""
    limit = np.array([size[1] - 1, size[0] - 1])
    return np.clip(np.rint(points), 0, limit).astype(np.intp)


def box_of_mask(mask: BoolMask) -> PixelBox | None:
    """The tight box (x0, y0, x1, y1), half-open pixels, of a mask bool [H, W]; None if empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return None
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def surroundings(mask: BoolMask, margin: int) -> tuple[slice, slice] | None:
    """Rows and columns of a mask's tight box and `margin` pixels around it; None if it is empty."""
    box = box_of_mask(mask)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    return slice(max(0, y0 - margin), y1 + margin), slice(max(0, x0 - margin), x1 + margin)


def mask_iou(first: BoolMask, second: BoolMask) -> float:
    """Intersection over union of two masks bool [H, W]; 0 if both are empty."""
    union = int(np.count_nonzero(first | second))
    return int(np.count_nonzero(first & second)) / union if union else 0.0


def discs(size: tuple[int, ...], points: NDArray[np.intp], radius: int) -> BoolMask:
    """Bool [H, W]: filled discs of `radius` pixels around the points [P, 2] (x, y)."""
    canvas = np.zeros(size[:2], np.uint8)
    for x, y in points:
        cv2.circle(canvas, (int(x), int(y)), radius, (1,), cv2.FILLED)
    return canvas > 0
