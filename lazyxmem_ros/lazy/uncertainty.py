# SPDX-License-Identifier: Apache-2.0
"""How unsure the tracker is: entropy per pixel and per object, on the device.

Vujasinović et al., "Strike the Balance: On-the-Fly Uncertainty based User Interactions for
Long-Term Video Object Segmentation" (Lazy-XMem), ACCV 2024, section 3.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lazyxmem_ros.basics import PixelBox

_DILATION_SHARE = 0.05
"""The dilation kernel's area as a share of the object's."""
_MIN_KERNEL_SIDE = 2


def entropy_map(probabilities: Tensor) -> Tensor:
    """Normalised Shannon entropy of every pixel: -sum p log p / log(K + 1).

    Args:
        probabilities: float [K + 1, H, W], background first, summing to 1 over the classes.

    Returns:
        Float [H, W] on the same device, 0 (certain) to 1 (uniform); 0 where K = 0.
    """
    classes = probabilities.shape[0]
    if classes < 2:
        return torch.zeros_like(probabilities[0])
    logs = probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log_()
    return logs.mul_(probabilities).sum(0).div_(-math.log(classes))


def winning_class(probabilities: Tensor) -> Tensor:
    """The most probable class of each pixel, the first of equals.

    Args:
        probabilities: float [K + 1, H, W].

    Returns:
        uint8 [H, W] (int16 beyond 256 classes) on the same device.
    """
    if len(probabilities) == 2:  # one object, the usual case: a comparison is quicker
        return (probabilities[1] > probabilities[0]).to(torch.uint8)
    most = torch.iinfo(torch.uint8).max + 1
    dtype = torch.uint8 if len(probabilities) <= most else torch.int16
    # PyTorch's argmax over the outermost dimension is tens of times slower than its max on a CPU.
    return probabilities.max(0).indices.to(dtype)


def kernel_side(area: int) -> int:
    """Side in pixels of the dilation kernel for an object of `area` pixels.

    The square root of 5 % of the area, cut to whole pixels, then up to even, at least 2.
    """
    side = int(math.sqrt(_DILATION_SHARE * area))
    return max(side + side % 2, _MIN_KERNEL_SIDE)


@functools.lru_cache(maxsize=64)
def _half_widths(side: int) -> tuple[int, ...]:
    """Half the number of pixels in each row of the disc-shaped kernel's upper half, outermost
    first: row a (counted from the middle, from 0) has the columns b with a² + b² < (side/2 - 1)².
    """
    radius = side // 2 - 1
    rows = range(side // 2 - 1, -1, -1)
    return tuple(
        0 if row >= radius else math.isqrt(radius * radius - row * row - 1) + 1 for row in rows
    )


def disc_kernel(side: int) -> NDArray[np.uint8]:
    """The dilation kernel, uint8 [side, side]: a quarter disc of radius side/2 - 1, mirrored.

    Its outermost rows and columns are zero; of side 2 it is zero throughout.
    """
    half = side // 2
    quarter = np.zeros((half, half), np.uint8)
    for row, width in enumerate(_half_widths(side)):
        quarter[row, half - width :] = 1
    upper = np.concatenate([quarter, quarter[:, ::-1]], axis=1)
    return np.concatenate([upper, upper[::-1]], axis=0)


def dilate(mask: Tensor, side: int) -> Tensor:
    """The mask dilated by `disc_kernel(side)`, whose anchor is the pixel (side/2, side/2).

    The disc is the union of a few rectangles, and whether a rectangle around a pixel meets the
    mask is one subtraction in the mask's summed-area table: the cost grows with the number of
    different row widths, not with the kernel's area.

    Args:
        mask: bool [H, W].
        side: even, from `kernel_side`. The zero kernel of side 2 dilates nothing.

    Returns:
        Bool [H, W]: true where the mask has a pixel at any offset (dy, dx) = (i - side/2,
        j - side/2) with kernel[i, j] = 1.
    """
    half = side // 2
    widths = _half_widths(side)
    if not any(widths):
        return mask
    height, width = mask.shape
    # table[y, x] = pixels of the mask above and left of (y - half, x - half).
    table = torch.zeros(height + side + 1, width + side + 1, dtype=torch.int32, device=mask.device)
    inner = mask.to(torch.int32).cumsum(0, dtype=torch.int32).cumsum(1, dtype=torch.int32)
    table[half + 1 : half + 1 + height, half + 1 : half + 1 + width] = inner
    table[half + 1 + height :, half + 1 : half + 1 + width] = inner[-1:]
    table[half + 1 :, half + 1 + width :] = table[half + 1 :, half + width : half + width + 1]
    result = torch.zeros_like(mask)
    drawn = 0
    for row, reach in enumerate(widths):
        if reach == drawn:
            continue
        drawn = reach
        # Rows row .. side - row - 1 of the kernel are at least this wide.
        above = table[row : row + height]
        below = table[side - row : side - row + height]
        left, right = half - reach, half + reach
        column = below - above
        result |= column[:, right : right + width] > column[:, left : left + width]
    return result


@dataclass(frozen=True)
class ObjectUncertainty:
    """One object on one frame.

    Attributes:
        area: pixels of its mask.
        box: tight box (x0, y0, x1, y1) of its mask, half-open pixels; None if it is empty.
        entropy: masked entropy, >= 0 (above 1 where the dilated rim is unsure too); 0 if empty.
    """

    area: int
    box: PixelBox | None
    entropy: float


@dataclass(frozen=True)
class Uncertainty:
    """A frame's uncertainty.

    Attributes:
        entropy: float [H, W] on the device, 0..1.
        winner: uint8 or int16 [H, W] on the device, the pixels' most probable classes
            (0 = background).
        objects: one entry per object, in the order of the probabilities.
    """

    entropy: Tensor
    winner: Tensor
    objects: tuple[ObjectUncertainty, ...]


def _surroundings(seen: ObjectUncertainty, size: torch.Size) -> tuple[slice, slice] | None:
    """The rows and columns that an object's dilated mask can reach; None if it is empty."""
    if seen.box is None:
        return None
    reach = kernel_side(seen.area) // 2
    x0, y0, x1, y1 = seen.box
    height, width = size
    return (
        slice(max(y0 - reach, 0), min(y1 + reach, height)),
        slice(max(x0 - reach, 0), min(x1 + reach, width)),
    )


def _areas_and_boxes(winner: Tensor, objects: int) -> list[tuple[int, PixelBox | None]]:
    """Area and tight box of each object's mask, with one transfer from the device."""
    height = winner.shape[0]
    classes = torch.arange(1, objects + 1, device=winner.device, dtype=winner.dtype)
    masks = winner == classes[:, None, None]
    counts = torch.cat([masks.sum(2, dtype=torch.int32), masks.sum(1, dtype=torch.int32)], 1)
    result: list[tuple[int, PixelBox | None]] = []
    for count in counts.cpu().numpy():
        rows, columns = np.flatnonzero(count[:height]), np.flatnonzero(count[height:])
        if rows.size == 0:
            result.append((0, None))
            continue
        box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        result.append((int(count[:height].sum()), box))
    return result


@torch.inference_mode()
def measure(probabilities: Tensor) -> Uncertainty:
    """Entropy of the frame and masked entropy of all its objects.

    The masked entropy of an object is the entropy summed over its mask dilated by a disc of 5 %
    of its area, divided by the mask's area; 0 where the mask is empty (Lazy-XMem, section 3).
    An object too small for a kernel with a pixel (under 180 pixels) is not dilated.

    Args:
        probabilities: float [K + 1, H, W], background first.
    """
    entropy = entropy_map(probabilities)
    winner = winning_class(probabilities)
    found = _areas_and_boxes(winner, probabilities.shape[0] - 1)
    seen = [ObjectUncertainty(area, box, 0.0) for area, box in found]
    sums = torch.zeros(len(seen), device=entropy.device)
    for position, item in enumerate(seen):
        view = _surroundings(item, entropy.shape)
        if view is not None:
            near = dilate(winner[view] == position + 1, kernel_side(item.area))
            sums[position] = (entropy[view] * near).sum()
    objects = tuple(
        ObjectUncertainty(item.area, item.box, total / max(item.area, 1))
        for item, total in zip(seen, sums.tolist(), strict=True)
    )
    return Uncertainty(entropy, winner, objects)
