# SPDX-License-Identifier: Apache-2.0
"""Images of noise, square masks, and a memory so small that a few frames fill it."""

from __future__ import annotations

import numpy as np

from lazyxmem_ros.xmem import MemoryConfig

SIZE = (48, 64)
TINY = MemoryConfig(
    memory_every=2,
    max_working_frames=5,
    min_working_frames=3,
    keep_first_frames=2,
    prototypes=6,
    max_long_term_tokens=20,
    top_k=5,
)


def image(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Noise, uint8 [H, W, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def mask(top: int, left: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A square of 16 pixels' side, bool [H, W]."""
    m = np.zeros(size, dtype=bool)
    m[top : top + 16, left : left + 16] = True
    return m
