# SPDX-License-Identifier: Apache-2.0
"""Draws tracks over a frame, for people."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.lazy import Track, TrackState

GOLDEN_ANGLE_TURNS = 0.618033988749895
"""Hues a golden angle apart stay distinct however many objects there are."""

_STATE_MARKS = {
    TrackState.TRACKED: "",
    TrackState.UNCERTAIN: "?",
    TrackState.LOST: " lost",
    TrackState.PAUSED: " paused",
}


def object_color(object_id: int) -> tuple[int, int, int]:
    """A stable RGB colour, 0..255, for an object id."""
    hue = round((object_id * GOLDEN_ANGLE_TURNS) % 1.0 * 179)
    rgb = cv2.cvtColor(np.array([[[hue, 220, 255]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0]
    return int(rgb[0]), int(rgb[1]), int(rgb[2])


def draw_overlay(
    image: NDArray[np.uint8],
    labels: NDArray[np.uint16],
    tracks: Iterable[Track],
    *,
    opacity: float,
) -> NDArray[np.uint8]:
    """A copy of the image [H, W, 3] RGB with every object tinted, outlined and named.

    opacity: 0 (outline alone) .. 1 (solid).
    """
    drawn = image.copy()
    for track in tracks:
        color = object_color(track.object_id)
        mask = labels == track.object_id
        tint = (1 - opacity) * image[mask] + opacity * np.array(color)
        drawn[mask] = tint.astype(np.uint8)
        outlines, _ = cv2.findContours(
            mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(drawn, outlines, -1, color, 1, cv2.LINE_AA)
        _write_name(drawn, track, color)
    return drawn


def _write_name(drawn: NDArray[np.uint8], track: Track, color: tuple[int, int, int]) -> None:
    if track.box is None:
        return
    text = (track.label or str(track.object_id)) + _STATE_MARKS[track.state]
    x, y = int(track.box[0]), max(int(track.box[1]) - 4, 12)
    for shade, thickness in (((0, 0, 0), 3), (color, 1)):
        cv2.putText(
            drawn, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, shade, thickness, cv2.LINE_AA
        )
