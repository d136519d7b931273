# SPDX-License-Identifier: Apache-2.0
"""Gives the tracker a corrector of your own: own_corrector.py VIDEO MASK.PNG.

A corrector is any object with a name and `refine` (`lazyxmem_ros.correction.Corrector`). This one
knows that the object is in one piece and has a smooth outline.
"""

import sys
from collections.abc import Hashable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.correction import Prompt, Refinement
from lazyxmem_ros.data.label_maps import read_label_map
from lazyxmem_ros.lazy import LazyConfig, open_tracker
from lazyxmem_ros.track import Video, track_frames

DISC = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
"""What is thinner than this disc is no part of the object, nor a hole in it."""
GAIN = 0.01
"""IoU that the corrector is expected to gain."""


class SmoothPiece:
    """Keeps the largest part of the predicted mask, smoothed."""

    name = "smooth piece"

    def refine(
        self,
        image: NDArray[np.uint8],
        prompts: Sequence[Prompt],
        *,
        image_key: Hashable | None = None,
    ) -> list[Refinement]:
        """One mask per prompt; the score is the IoU that is expected of it, 0 = it failed."""
        return [self._one(image, prompt) for prompt in prompts]

    def _one(self, image: NDArray[np.uint8], prompt: Prompt) -> Refinement:
        if prompt.mask is None or not prompt.mask.any():
            return Refinement(np.zeros(image.shape[:2], bool), 0.0)
        smooth = prompt.mask.astype(np.uint8)
        for operation in (cv2.MORPH_CLOSE, cv2.MORPH_OPEN):
            smooth = cv2.morphologyEx(smooth, operation, DISC)
        _, parts, statistics, _ = cv2.connectedComponentsWithStats(smooth)
        areas = statistics[1:, cv2.CC_STAT_AREA]
        mask = parts == 1 + areas.argmax() if len(areas) else smooth > 0
        # Only a mask that promises more than the tracker's own is taken.
        return Refinement(mask, min(1.0, (prompt.prior_iou or 0.0) + GAIN))


def main(video: Path, mask: Path) -> None:
    """Track, and say on which frames the corrector has changed the mask."""
    frames = Video.open(video)
    labels = read_label_map(mask)
    masks = {int(number): labels == number for number in np.unique(labels) if number}
    # It corrects itself on every frame, so that there is something to see.
    often = LazyConfig(
        operator_corrections=False, pseudo_entropy=0.0, pseudo_cooldown_frames=0, show_iou=0.0
    )
    tracker = open_tracker(config=often)
    corrector = SmoothPiece()
    for frame in track_frames(frames, tracker, masks, corrector=corrector):
        changed = int(np.count_nonzero(frame.labels != frame.result.labels))
        print(f"{frame.name}: the corrector changed {changed} pixels")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
