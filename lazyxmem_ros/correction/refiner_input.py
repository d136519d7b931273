# SPDX-License-Identifier: Apache-2.0
"""Makes what the refiner's network sees: square crops of an image, prompts drawn as channels.

The corrector (`refiner.py`) and the network's training use it alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.correction.base import Prompt, box_of_mask
from lazyxmem_ros.correction.refiner_network import (
    BOX,
    CHANNELS,
    CROP,
    NEGATIVE,
    POSITIVE,
    PRIOR,
    PRIOR_IOU,
)
from lazyxmem_ros.xmem.network import IMAGE_MEAN, IMAGE_STD

CLICK_SIGMA = 4.0
"""Standard deviation of a click's Gaussian, pixels of the crop."""
MARGIN = 1.6
"""Side of the crop as a multiple of what is known of the object."""
SEARCH_SHARES = (0.42, 0.75, 1.0)
"""Sides of the crops that are tried where only clicks are known, as shares of the image's shorter
side. The network keeps the answer that it expects most of."""
MIN_SIDE = 48
"""Least side of a crop, pixels of the image."""


@dataclass(frozen=True)
class Window:
    """A square window of the image that becomes the crop: corner and side, whole pixels."""

    x: int
    y: int
    side: int

    def take(self, picture: NDArray[np.uint8], crop_side: int = CROP) -> NDArray[np.uint8]:
        """Cut the crop, `crop_side` pixels wide and high, from a picture uint8 [H, W] or [H, W, C].

        Beyond the picture it is zero.
        """
        method = cv2.INTER_AREA if self.side > crop_side else cv2.INTER_LINEAR
        x0, y0, side = self.x, self.y, self.side
        height, width = picture.shape[:2]
        left, top = max(0, -x0), max(0, -y0)
        right, bottom = max(0, x0 + side - width), max(0, y0 + side - height)
        inner = picture[max(0, y0) : y0 + side, max(0, x0) : x0 + side]
        whole = cv2.copyMakeBorder(inner, top, bottom, left, right, cv2.BORDER_CONSTANT)
        crop = cv2.resize(whole, (crop_side, crop_side), interpolation=method)
        return crop.astype(np.uint8, copy=False)

    def place(self, points: NDArray[np.float32], crop_side: int = CROP) -> NDArray[np.float32]:
        """The places, in a crop of `crop_side` pixels, of points [P, 2] (x, y) of the image."""
        corner = np.array([self.x, self.y], np.float32)
        return ((points - corner) * crop_side / self.side).astype(np.float32)

    def put_back(self, crop: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
        """Put a square crop's values at their place in an image of `size` (H, W); 0 elsewhere."""
        x0, y0, side = self.x, self.y, self.side
        scaled = cv2.resize(crop, (side, side), interpolation=cv2.INTER_LINEAR)
        out = np.zeros(size, np.float32)
        top, left = max(0, y0), max(0, x0)
        bottom, right = min(size[0], y0 + side), min(size[1], x0 + side)
        out[top:bottom, left:right] = scaled[top - y0 : bottom - y0, left - x0 : right - x0]
        return out


def choose_window(
    prompt: Prompt, size: tuple[int, int], *, search_share: float = SEARCH_SHARES[1]
) -> Window:
    """The window around all that a prompt knows of the object, in an image of `size` (H, W).

    search_share: least side of the window where only clicks are known, as a share of the image's
    shorter side.
    """
    boxes = [] if prompt.box is None else [prompt.box]
    prior = None if prompt.mask is None else box_of_mask(prompt.mask)
    if prior is not None:
        boxes.append(prior)
    points = prompt.positive
    xs = [b[0] for b in boxes] + [b[2] for b in boxes] + [float(x) for x in points[:, 0]]
    ys = [b[1] for b in boxes] + [b[3] for b in boxes] + [float(y) for y in points[:, 1]]
    extent = MARGIN * max(max(xs) - min(xs), max(ys) - min(ys))
    least = float(MIN_SIDE) if boxes else search_share * min(size)
    side = max(1, round(max(extent, least)))  # a line camera's image is one pixel high
    x, y = (min(xs) + max(xs) - side) / 2, (min(ys) + max(ys) - side) / 2
    return Window(round(x), round(y), side)


def draw_clicks(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Draw clicks [P, 2] (x, y) of the crop as a map [160, 160], the highest of their Gaussians."""
    out = np.zeros((CROP, CROP), np.float32)
    axis = np.arange(CROP, dtype=np.float32)
    for x, y in points:
        gx = np.exp(-((axis - x) ** 2) / (2 * CLICK_SIGMA**2))
        gy = np.exp(-((axis - y) ** 2) / (2 * CLICK_SIGMA**2))
        np.maximum(out, gy[:, None] * gx[None, :], out=out)
    return out


def network_input(
    image: NDArray[np.uint8],
    prior: NDArray[np.bool_] | None,
    positive: NDArray[np.float32],
    negative: NDArray[np.float32],
    box: tuple[float, float, float, float] | None,
    *,
    prior_iou: float | None = None,
) -> NDArray[np.float32]:
    """A crop's channels [8, 160, 160] from its image, prior, and prompts in crop pixels."""
    out = np.zeros((CHANNELS, CROP, CROP), np.float32)
    colour = (image.astype(np.float32) / 255 - IMAGE_MEAN) / IMAGE_STD
    out[:3] = colour.transpose(2, 0, 1)
    out[PRIOR] = -1 if prior is None else prior
    out[PRIOR_IOU] = -1 if prior is None or prior_iou is None else prior_iou
    out[POSITIVE], out[NEGATIVE] = draw_clicks(positive), draw_clicks(negative)
    if box is not None:
        x0, y0, x1, y1 = (int(np.clip(round(v), 0, CROP)) for v in box)
        out[BOX, y0:y1, x0:x1] = 1
    return out


def window_input(image: NDArray[np.uint8], prompt: Prompt, window: Window) -> NDArray[np.float32]:
    """The network's input [8, 160, 160] for one window of an image."""
    box = None
    if prompt.box is not None:
        corners = window.place(np.array(prompt.box, np.float32).reshape(2, 2))
        x0, y0, x1, y1 = (float(v) for v in corners.ravel())
        box = (x0, y0, x1, y1)
    prior = None
    if prompt.mask is not None and prompt.mask.any():
        prior = window.take(np.where(prompt.mask, 255, 0).astype(np.uint8)) > 127
    return network_input(
        window.take(image),
        prior,
        window.place(prompt.positive),
        window.place(prompt.negative),
        box,
        prior_iou=prompt.prior_iou,
    )


def overlap(a: Window, b: Window) -> float:
    """IoU of two windows."""
    width = min(a.x + a.side, b.x + b.side) - max(a.x, b.x)
    height = min(a.y + a.side, b.y + b.side) - max(a.y, b.y)
    both = max(0, width) * max(0, height)
    return both / (a.side**2 + b.side**2 - both)
