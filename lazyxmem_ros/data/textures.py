# SPDX-License-Identifier: Apache-2.0
"""Textures of the generated scene: smooth noise, gravel, wood, koi skin, lily pads.

All images are float32 RGB in 0..1, [H, W, 3]; everything is drawn from a seeded generator.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import skimage
from numpy.typing import NDArray

Image = NDArray[np.float32]
Plane = NDArray[np.float32]

CREAM = np.array([0.96, 0.92, 0.84], np.float32)
ORANGE = np.array([0.93, 0.38, 0.10], np.float32)
PALE_GOLD = np.array([0.93, 0.80, 0.45], np.float32)
GOLD = np.array([0.88, 0.62, 0.20], np.float32)
INK = np.array([0.10, 0.10, 0.13], np.float32)
SLATE = np.array([0.34, 0.42, 0.52], np.float32)
SKIN_SIZE = (128, 320)
"""Rows (across the fish) and columns (nose to tail) of a skin."""
SCALES_PER_SKIN = 38


def smooth_noise(random: np.random.Generator, size: tuple[int, int], cell: float) -> Plane:
    """Noise of about unit variance whose blobs measure `cell` pixels, [H, W]."""
    height, width = size
    rows, columns = (max(2, int(np.ceil(side / cell)) + 3) for side in size)
    coarse = random.standard_normal((rows, columns)).astype(np.float32)
    fine = cv2.resize(
        coarse, (int(columns * cell) + 1, int(rows * cell) + 1), interpolation=cv2.INTER_CUBIC
    )
    return np.asarray(fine[:height, :width] * 1.5, dtype=np.float32)


def tint(brightness: Plane, dark: Image, light: Image) -> Image:
    """Map a 0..1 plane onto the line between two colours."""
    return dark + brightness[..., None] * (light - dark)


def pond_floor(random: np.random.Generator, size: tuple[int, int]) -> Image:
    """Gravel under green water, with lighter and darker patches."""
    # Read by path: loading through skimage.data pulls in a downloader that is not needed here.
    path = Path(skimage.__file__).parent / "data" / "gravel.png"
    gravel = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if gravel is None:
        raise FileNotFoundError(f"{path} is missing: scikit-image is installed incompletely")
    plane = gravel.astype(np.float32) / 255
    tile = np.block([[plane, plane[:, ::-1]], [plane[::-1], plane[::-1, ::-1]]])
    stones = np.tile(tile, (size[0] // tile.shape[0] + 1, size[1] // tile.shape[1] + 1))
    stones = stones[: size[0], : size[1]]
    floor = tint(
        np.clip(stones * 1.1, 0, 1),
        np.array([0.07, 0.11, 0.10], np.float32),
        np.array([0.56, 0.58, 0.46], np.float32),
    )
    patches = smooth_noise(random, size, 140.0)
    algae = np.clip(0.28 + 0.2 * smooth_noise(random, size, 60.0), 0, 0.6)[..., None]
    floor = floor * (1 - algae) + floor.mean(axis=2, keepdims=True) * algae * np.array(
        [0.75, 1.15, 0.6], np.float32
    )
    return np.asarray(floor * (0.85 + 0.09 * patches[..., None]), dtype=np.float32)


def koi_skin(
    random: np.random.Generator,
    *,
    base: Image = CREAM,
    patch: Image = ORANGE,
    ink: float = 0.12,
    orange: float = 0.52,
) -> Image:
    """A koi's back unrolled: columns from nose to tail tip, rows across; `ink`, `orange`: the
    shares of black and of the patches' colour.
    """
    rows, columns = SKIN_SIZE
    along = np.linspace(0, 1, columns, dtype=np.float32)[None, :]
    across = np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
    blobs = smooth_noise(random, SKIN_SIZE, 46.0) + 0.35 * smooth_noise(random, SKIN_SIZE, 14.0)
    coverage = _soft_step(blobs - np.quantile(blobs, 1 - orange) - 0.25 * np.abs(across), 0.10)
    skin = base + coverage[..., None] * (patch - base)
    spots = smooth_noise(random, SKIN_SIZE, 24.0) + 0.4 * smooth_noise(random, SKIN_SIZE, 9.0)
    spotted = _soft_step(spots - np.quantile(spots, 1 - ink), 0.15)
    skin = skin + spotted[..., None] * (INK - skin)
    tail = _soft_step(along - 0.80, 0.02)
    rays = 0.88 + 0.12 * np.cos(across * 40)
    skin = skin * np.asarray(1 - (tail * (1 - rays * 0.95))[..., None], dtype=np.float32)
    skin = skin * _scales(along, across)[..., None]
    fin = np.exp(-((across / 0.10) ** 2)) * _soft_step(0.16 - np.abs(along - 0.50), 0.05)
    skin = skin * (1 - 0.22 * fin[..., None])
    skin = skin * (0.97 + 0.03 * random.standard_normal((rows, columns, 1), np.float32))
    for side in (-0.55, 0.55):
        eye = ((along - 0.085) / 0.014) ** 2 + ((across - side) / 0.16) ** 2
        skin[eye < 1] = INK * 0.6
    return np.clip(skin, 0, 1).astype(np.float32)


def wood_planks(random: np.random.Generator, size: tuple[int, int], plank: int) -> Image:
    """Weathered planks `plank` pixels high, lying across, with grain, gaps and nails."""
    height, width = size
    grain = np.zeros(size, np.float32)
    shade = np.zeros((height, 1), np.float32)
    for top in range(0, height, plank):
        rows = min(plank, height - top)
        streaks = smooth_noise(random, (plank, width // 24 + 2), 2.0)[:rows]
        grain[top : top + rows] = cv2.resize(streaks, (width, rows))
        shade[top : top + rows] = random.normal(0, 0.07)
    brightness = np.clip(0.52 + 0.13 * grain + shade, 0, 1)
    wood = tint(
        np.asarray(brightness, dtype=np.float32),
        np.array([0.25, 0.16, 0.10], np.float32),
        np.array([0.74, 0.58, 0.42], np.float32),
    )
    row = np.arange(height, dtype=np.float32)[:, None] % plank
    gap = np.clip(np.minimum(row, plank - row) / 2.2, 0.25, 1)
    wood = np.asarray(wood * gap[..., None], dtype=np.float32)
    for top in range(plank // 2, height, plank):
        for column in (9, width - 10):
            cv2.circle(wood, (column, top), 2, (0.16, 0.14, 0.13), -1, cv2.LINE_AA)
    return np.asarray(wood, dtype=np.float32)


def lily_pad(random: np.random.Generator, radius: int) -> tuple[Image, Plane]:
    """A floating leaf with veins and a notch: colour and opacity, [2r+1, 2r+1]."""
    offsets = np.arange(-radius, radius + 1, dtype=np.float32)
    x, y = np.meshgrid(offsets, offsets)
    distance, angle = np.hypot(x, y), np.arctan2(y, x)
    notch = random.uniform(-np.pi, np.pi)
    away = np.abs(np.angle(np.exp(1j * (angle - notch)))).astype(np.float32)
    edge = radius * (0.95 + 0.02 * np.cos(5 * angle + notch))
    opacity = np.clip(edge - distance, 0, 1) * np.clip((away - 0.22) * distance / 2, 0, 1)
    veins = 0.5 + 0.5 * np.cos(angle * 13 + notch) ** 12
    mottled = smooth_noise(random, (2 * radius + 1, 2 * radius + 1), radius / 3.0)
    brightness = np.clip(0.42 + 0.22 * veins + 0.07 * mottled - 0.12 * distance / radius, 0, 1)
    leaf = tint(
        brightness,
        np.array([0.07, 0.17, 0.05], np.float32),
        np.array([0.52, 0.74, 0.28], np.float32),
    )
    return np.asarray(leaf, np.float32), np.asarray(opacity, np.float32)


def _scales(along: Plane, across: Plane) -> Plane:
    """Brightness of overlapping scales: rows of arcs, each shifted by half a scale."""
    lane = across * SCALES_PER_SKIN * 0.2
    shift = 0.5 * (np.floor(lane) % 2)
    phase = (along * SCALES_PER_SKIN + shift) % 1.0
    bow = np.hypot(phase - 0.15, (lane % 1.0) - 0.5)
    return np.asarray(1.0 - 0.10 * np.exp(-(((bow - 0.55) / 0.10) ** 2)), dtype=np.float32)


def _soft_step(value: Plane, softness: float) -> Plane:
    return np.asarray(1 / (1 + np.exp(-np.clip(value / softness, -40, 40))), dtype=np.float32)
