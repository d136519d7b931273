# SPDX-License-Identifier: Apache-2.0
"""What light and camera do to a composed clip."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from training.layers import FloatArray
from training.material import UInt8Array


@dataclass(frozen=True)
class Clip:
    """frames: RGB uint8 [T, H, W, 3]; labels: uint8 [T, H, W], 0 background, 1..K targets."""

    frames: UInt8Array
    labels: UInt8Array


def move_light(rng: np.random.Generator, clip: Clip, times: FloatArray) -> None:
    """Multiplies the frames, in place, by a net of light that drifts over them."""
    size = clip.frames.shape[1]
    cells = int(rng.integers(5, 14))
    strength, sharpness = rng.uniform(0.1, 0.4), rng.uniform(1.5, 4)
    layers, drifts = [], []
    for _ in range(2):
        grid = rng.standard_normal((2 * cells, 2 * cells)).astype(np.float32)
        layers.append(cv2.resize(grid, (2 * size, 2 * size), interpolation=cv2.INTER_CUBIC))
        drifts.append(rng.uniform(-0.4, 0.4, 2) * size)
    for t, time in enumerate(times):
        total = np.zeros((size, size), np.float32)
        for layer, drift in zip(layers, drifts, strict=True):
            x, y = (int(np.clip(size / 2 + d * time / 3, 0, size)) for d in drift)
            total += layer[y : y + size, x : x + size]
        light = 1 - 0.3 * strength + strength * np.exp(-sharpness * np.abs(total))
        lit = clip.frames[t] * light[..., None].astype(np.float32)
        clip.frames[t] = np.clip(lit, 0, 255).astype(np.uint8)


def shoot(rng: np.random.Generator, clip: Clip, times: FloatArray) -> Clip:
    """What a camera adds: exposure, colour cast, blur, noise; and a mirrored view."""
    frames, labels = clip.frames, clip.labels
    count, size = frames.shape[0], frames.shape[1]
    if rng.random() < 0.5:
        frames, labels = frames[:, :, ::-1], labels[:, :, ::-1]
    frames = np.ascontiguousarray(frames)
    cast = rng.normal(1, 0.06, 3)
    exposure = 1 + rng.normal(0, 0.12) + rng.normal(0, 0.06) * times
    bias = rng.normal(0, 8)
    sigma = float(rng.exponential(2.5)) if rng.random() < 0.7 else 0.0
    blur = rng.random()
    shade = None
    if rng.random() < 0.2:
        grid = rng.normal(1, 0.2, (3, 3)).astype(np.float32)
        shade = cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)[..., None]
    out = np.empty_like(frames)
    for t in range(count):
        frame = frames[t]
        if blur < 0.15:
            frame = cv2.GaussianBlur(frame, (0, 0), float(rng.uniform(0.5, 1.4)))
        elif blur < 0.25:
            frame = cv2.blur(frame, (int(rng.integers(1, 6)), int(rng.integers(1, 6))))
        value = frame.astype(np.float32) * (cast * exposure[t]).astype(np.float32) + bias
        if shade is not None:
            value *= shade
        if sigma:
            value += sigma * _noise(rng, size)
        out[t] = np.clip(value, 0, 255).astype(np.uint8)
    return Clip(out, np.ascontiguousarray(labels))


def _noise(rng: np.random.Generator, size: int) -> FloatArray:
    return rng.standard_normal((size, size, 3), dtype=np.float32)
