# SPDX-License-Identifier: Apache-2.0
"""Draws and writes pictures of a run: overlays, contact sheets, indexed PNGs, videos.

Images are uint8 RGB [H, W, 3]; label maps uint16 [H, W], 0 = background.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lazyxmem_ros.basics import Labels
from lazyxmem_ros.evaluation.errors import EvaluationError

RgbImage = NDArray[np.uint8]
Colour = tuple[int, int, int]

PALETTE_SIZE = 256
WHITE: Colour = (255, 255, 255)
MASK_OPACITY = 0.38
"""Share of the object's colour in a tinted pixel, 0..1."""
CRF = 20
"""Constant rate factor of H.264: 18 looks lossless, 23 is the encoder's default."""


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
    """An object's bright colour, RGB: each id is a golden angle further round the hue circle."""
    hue = int((94 + (object_id - 1) * 68.75) % 180)
    pixel = cv2.cvtColor(np.array([[[hue, 225, 255]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0]
    return int(pixel[0]), int(pixel[1]), int(pixel[2])


def overlay(
    image: RgbImage, labels: Labels, truth: Labels | None = None, *, opacity: float = MASK_OPACITY
) -> RgbImage:
    """The image with each object tinted and outlined; the ground truth's outline in white."""
    result = image.copy()
    for object_id in np.unique(labels[labels > 0]):
        mask = labels == object_id
        colour = np.array(object_colour(int(object_id)), np.float32)
        result[mask] = (result[mask] * (1 - opacity) + colour * opacity).astype(np.uint8)
        _outline(result, mask, object_colour(int(object_id)), thickness=2)
    if truth is not None:
        for object_id in np.unique(truth[truth > 0]):
            _outline(result, truth == object_id, WHITE, thickness=1)
    return result


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


def save_image(path: Path, image: RgbImage) -> None:
    """Write an RGB image; the suffix decides the format. Folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def save_indexed_png(path: Path, labels: Labels) -> None:
    """Write a label map as DAVIS does: an 8-bit PNG with palette, the pixel being the object id.

    Raises EvaluationError for ids above 255, which this format cannot hold.
    """
    highest = int(labels.max(initial=0))
    if highest >= PALETTE_SIZE:
        raise EvaluationError(
            f"object id {highest} does not fit DAVIS's 8-bit indexed PNG; use ids up to 255"
        )
    picture = Image.fromarray(labels.astype(np.uint8))
    picture.putpalette(davis_palette().reshape(-1).tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def write_video(path: Path, frames: Iterable[RgbImage], *, rate: float) -> int:
    """Write an H.264 video at `rate` frames per second; returns the number of frames.

    Raises EvaluationError where there is no frame or the encoder fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    encoder = None
    count = 0
    try:
        for frame in frames:
            if encoder is None:
                encoder = imageio_ffmpeg.write_frames(
                    str(path),
                    (frame.shape[1], frame.shape[0]),
                    fps=rate,
                    codec="libx264",
                    macro_block_size=2,
                    output_params=["-crf", str(CRF), "-movflags", "+faststart"],
                    ffmpeg_log_level="error",
                )
                encoder.send(None)
            encoder.send(np.ascontiguousarray(frame))
            count += 1
    except OSError as error:
        raise EvaluationError(f"{path}: the video could not be encoded: {error}") from error
    finally:
        if encoder is not None:
            encoder.close()
    if count == 0:
        raise EvaluationError(f"{path}: a video needs at least one frame")
    return count


def _outline(image: RgbImage, mask: NDArray[np.bool_], colour: Colour, *, thickness: int) -> None:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, contours, -1, colour, thickness, cv2.LINE_AA)


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib  # carries a font, the machine may have none; overlays do without

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size)
