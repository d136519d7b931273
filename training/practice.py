# SPDX-License-Identifier: Apache-2.0
"""What makes a corrector's samples like those of practice: masks as the tracker really leaves them,
and pictures in other colours and turned round, of which no two photographs are enough.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray

from lazyxmem_ros.weights import locate
from lazyxmem_ros.xmem import MemoryConfig, XMem, XMemTracker, load_network
from training.camera import Clip

UInt8Array = NDArray[np.uint8]

GREY_SHARE, SWAPPED_SHARE, TINTED_SHARE = 0.05, 0.1, 0.5
TINT = 0.12
"""Standard deviation of what one colour channel takes on from another."""
GAMMA = 0.25
"""Standard deviation of the logarithm of the exponent."""
TURNED_SHARE = 0.25


@functools.lru_cache(maxsize=1)
def embedded_tracker() -> XMem:
    """The tracker that ships, loaded once."""
    return load_network(locate(""))


def tracked(clip: Clip, objects: int) -> list[NDArray[np.uint16]]:
    """The clip's labels [H, W] as the embedded tracker sees them, from the first frame's on."""
    torch.set_num_threads(1)  # of a worker process, beside the one that trains
    tracker = XMemTracker(
        embedded_tracker(), MemoryConfig(memory_every=2), device="cpu", precision="auto"
    )
    out = []
    for index, image in enumerate(clip.frames):
        first = {i: np.asarray(clip.labels[0] == i) for i in range(1, objects + 1)}
        frame = tracker.segment(image, None if index else first)
        out.append(frame.labels())
        tracker.memorize(frame)
    return out


def recoloured(rng: np.random.Generator, image: UInt8Array) -> UInt8Array:
    """The picture, uint8 [H, W, 3], with its colours swapped, mixed, bent or gone."""
    colour = image.astype(np.float32) / 255
    if rng.random() < SWAPPED_SHARE:
        colour = colour[..., rng.permutation(3)]
    if rng.random() < TINTED_SHARE:
        colour = colour @ (np.eye(3) + rng.normal(0, TINT, (3, 3))).astype(np.float32)
        colour = np.clip(colour, 0, 1) ** float(np.exp(rng.normal(0, GAMMA)))
    if rng.random() < GREY_SHARE:
        colour = colour.mean(-1, keepdims=True).repeat(3, -1)
    return np.asarray(colour * 255, np.float32).clip(0, 255).astype(np.uint8)


def turned(rng: np.random.Generator, *pictures: NDArray[np.generic]) -> list[NDArray[np.generic]]:
    """Square pictures [S, S, ...], maybe mirrored, and sometimes turned by quarters, all alike."""
    quarters = int(rng.integers(1, 4)) if rng.random() < TURNED_SHARE else 0
    mirrored = rng.random() < 0.5
    out = [np.rot90(picture, quarters) for picture in pictures]
    return [np.ascontiguousarray(p[:, ::-1] if mirrored else p) for p in out]
