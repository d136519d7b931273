# SPDX-License-Identifier: Apache-2.0
"""The pictures of a run's worst frames."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.data.samples import Sample
from lazyxmem_ros.evaluation.pictures import caption
from lazyxmem_ros.images.drawing import overlay
from lazyxmem_ros.images.files import save_image

SAVED = 3
SEGMENTS = 6
"""A sequence is cut into so many stretches; each offers its worst frame, so that they differ."""
PICTURE_WIDTH, PICTURE_HEIGHT = 480, 960
"""Pixels, at most."""


class WorstFrames:
    """Keeps the worst frame of each stretch of a sequence of `length` frames, not all of them."""

    def __init__(self, length: int) -> None:
        self._segment = max(1, -(-length // SEGMENTS))
        self._worst: dict[int, tuple[float, Sample, NDArray[np.uint16]]] = {}

    def add(self, sample: Sample, labels: NDArray[np.uint16], score: float) -> None:
        """Consider a frame with an image. labels: uint16 [H, W]. score: mean J of its objects."""
        segment = sample.index // self._segment
        if segment not in self._worst or score < self._worst[segment][0]:
            self._worst[segment] = (score, sample, labels)

    def save(self, folder: Path) -> None:
        """Write the overlays of the worst SAVED frames as JPEG, the worst one first."""
        ranked = sorted(self._worst.values(), key=lambda entry: entry[0])[:SAVED]
        for number, (score, sample, labels) in enumerate(ranked):
            assert sample.image is not None
            picture = overlay(sample.image, labels, truth=sample.truth)
            picture = cv2.resize(picture, _fitting(picture), interpolation=cv2.INTER_AREA)
            text = f"frame {sample.key}   J {score:.2f}"
            save_image(
                folder / f"{number}.jpg",  # the key may be as long as a name can be
                caption(np.asarray(picture, np.uint8), text, (10, 8)),
            )


def _fitting(picture: NDArray[np.uint8]) -> tuple[int, int]:
    """Width and height of a picture [H, W, 3] that is made as large as may be."""
    height, width = picture.shape[:2]
    scale = min(PICTURE_WIDTH / width, PICTURE_HEIGHT / height)
    return max(1, round(width * scale)), max(1, round(height * scale))
