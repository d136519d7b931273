# SPDX-License-Identifier: Apache-2.0
"""The palette of label maps, the colour of each object, and objects drawn over their image."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.basics import Labels

RgbImage = NDArray[np.uint8]
Colour = tuple[int, int, int]

PALETTE_SIZE = 256
WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)
MASK_OPACITY = 0.38
FIRST_HUE, HUE_STEP, HUES = 94, 68.75, 180
"""OpenCV's hue circle has 180 steps; those of neighbouring ids lie a golden angle apart."""
TEXT_SIZE = 0.45


@lru_cache(maxsize=1)
def davis_palette() -> NDArray[np.uint8]:
    """The palette of DAVIS's and PASCAL VOC's indexed masks, uint8 [256, 3].

    The bits of the index, lowest first, become the highest bits of red, green and blue in turn.
    """
    palette = np.zeros((PALETTE_SIZE, 3), np.uint8)
    for index in range(PALETTE_SIZE):
        for bit in range(8):
            for channel in range(3):
                palette[index, channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
    return palette


def object_colour(object_id: int) -> Colour:
    """A bright RGB colour for an object, the same everywhere: id 1 is cyan."""
    hue = int((FIRST_HUE + (object_id - 1) * HUE_STEP) % HUES)
    pixel = cv2.cvtColor(np.array([[[hue, 225, 255]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0]
    return int(pixel[0]), int(pixel[1]), int(pixel[2])


def object_ids_in(labels: NDArray[Any]) -> list[int]:
    """The values of a label map (bool, uint8, uint16) that are not 0, ascending.

    Counting is far quicker than sorting the pixels, and OpenCV counts bytes quicker than NumPy.
    """
    if labels.dtype == np.uint16 and labels.max(initial=0) <= np.iinfo(np.uint8).max:
        labels = labels.astype(np.uint8)
    if labels.dtype == np.uint8 and labels.ndim == 2 and labels.size:
        counts = cv2.calcHist([labels], [0], None, [256], [0, 256]).reshape(-1)
    else:
        counts = np.bincount(labels.reshape(-1))
    return [int(value) for value in np.flatnonzero(counts) if value]


def overlay(
    image: RgbImage,
    labels: Labels,
    *,
    truth: Labels | None = None,
    names: Mapping[int, str] | None = None,
    opacity: float = MASK_OPACITY,
) -> RgbImage:
    """A copy of the image [H, W, 3] with each object of `labels` [H, W] tinted and outlined.

    truth: its outlines are drawn in white. names: by object id, written above the object.
    opacity: 0 (outline alone) .. 1 (solid).
    """
    result = image.copy()
    for object_id in object_ids_in(labels):
        mask = labels == object_id
        colour = object_colour(object_id)
        tint = image[mask] * (1 - opacity) + np.array(colour, np.float32) * opacity
        result[mask] = tint.astype(np.uint8)
        _outline(result, mask, colour, thickness=2)
        if names and names.get(object_id):
            name = names[object_id]  # OpenCV's letters are those of ASCII
            _write_name(result, mask, name if name.isascii() else f"object {object_id}", colour)
    if truth is not None:
        for object_id in object_ids_in(truth):
            _outline(result, truth == object_id, WHITE, thickness=1)
    return result


def _outline(image: RgbImage, mask: NDArray[np.bool_], colour: Colour, *, thickness: int) -> None:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, contours, -1, colour, thickness, cv2.LINE_AA)


def _write_name(image: RgbImage, mask: NDArray[np.bool_], name: str, colour: Colour) -> None:
    left = int(np.argmax(mask.any(axis=0)))
    top = max(int(np.argmax(mask.any(axis=1))) - 4, 12)
    for shade, thickness in ((BLACK, 3), (colour, 1)):
        cv2.putText(
            image,
            name,
            (left, top),
            cv2.FONT_HERSHEY_SIMPLEX,
            TEXT_SIZE,
            shade,
            thickness,
            cv2.LINE_AA,
        )
