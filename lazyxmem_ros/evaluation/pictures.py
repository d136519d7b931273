# SPDX-License-Identifier: Apache-2.0
"""What pictures of a run show besides the objects: clicks, borders, captions, contact sheets.

Images are uint8 RGB [H, W, 3]. `images.drawing` draws the objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lazyxmem_ros.evaluation.errors import EvaluationError
from lazyxmem_ros.images.drawing import WHITE, Colour, RgbImage


def mark_clicks(
    image: RgbImage, positive: NDArray[np.float32], negative: NDArray[np.float32]
) -> None:
    """Draw clicks [P, 2] (x, y) into the image: positive green, negative red."""
    for points, colour in ((positive, (60, 220, 90)), (negative, (240, 60, 60))):
        for x, y in points:
            centre = round(float(x)), round(float(y))
            cv2.circle(image, centre, 8, WHITE, -1, cv2.LINE_AA)
            cv2.circle(image, centre, 6, colour, -1, cv2.LINE_AA)


def frame_border(image: RgbImage, colour: Colour, width: int = 5) -> None:
    """Draw a border of `width` pixels into the image."""
    height, columns = image.shape[:2]
    cv2.rectangle(image, (0, 0), (columns - 1, height - 1), colour, 2 * width - 1)


def caption(
    image: RgbImage, text: str, corner: tuple[int, int], *, size: int = 15, colour: Colour = WHITE
) -> RgbImage:
    """The image with text on a dark plate whose upper left corner is (x, y)."""
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas, "RGBA")
    font = _font(size)
    left, top, right, bottom = draw.textbbox(corner, text, font=font)
    draw.rounded_rectangle((left - 6, top - 4, right + 6, bottom + 4), 4, fill=(10, 12, 16, 170))
    draw.text(corner, text, font=font, fill=(*colour, 255))
    return np.asarray(canvas)


def contact_sheet(pictures: Sequence[RgbImage], *, columns: int, width: int) -> RgbImage:
    """Pictures of one size in a grid, each `width` pixels wide; raises EvaluationError if none."""
    if not pictures:
        raise EvaluationError("a contact sheet needs at least one picture")
    height = round(width * pictures[0].shape[0] / pictures[0].shape[1])
    tiles = [cv2.resize(tile, (width, height), interpolation=cv2.INTER_AREA) for tile in pictures]
    gap = 4
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 250, np.uint8)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        top, left = gap + row * (height + gap), gap + column * (width + gap)
        sheet[top : top + height, left : left + width] = tile
    return sheet


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib  # carries a font, the machine may have none; overlays do without

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size)
