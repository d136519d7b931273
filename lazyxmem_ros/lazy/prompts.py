# SPDX-License-Identifier: Apache-2.0
"""What to ask of a corrector: the tracker's own click, and the prompt for a person."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.correction.base import BoolMask, Prompt, box_of_mask


def pseudo_click(mask: BoolMask, entropy: NDArray[np.floating]) -> tuple[int, int] | None:
    """The point deep inside the predicted mask of which the tracker is most certain.

    The arg max over the mask of (Euclidean distance to the nearest pixel outside the mask) x
    (1 - entropy) (Lazy-XMem, section 3). The image's edge does not count as outside.

    Args:
        mask: bool [H, W].
        entropy: float [H, W], the (masked) normalised entropy, 0..1.

    Returns:
        (x, y) in pixels; None if the mask is empty.
    """
    box = box_of_mask(mask)
    if box is None:
        return None
    # One pixel of surroundings is all that the distances within the mask depend on.
    y0, y1 = max(box[1] - 1, 0), box[3] + 1
    x0, x1 = max(box[0] - 1, 0), box[2] + 1
    inside = mask[y0:y1, x0:x1]
    distance = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    if inside.all():  # the whole image: no pixel is outside
        distance = np.ones(inside.shape, np.float32)
    merit = np.where(inside, distance * (1.0 - entropy[y0:y1, x0:x1]), -1.0)
    y, x = np.unravel_index(int(merit.argmax()), merit.shape)
    return int(x) + x0, int(y) + y0


def pseudo_prompt(mask: BoolMask, entropy: NDArray[np.floating]) -> Prompt:
    """The prompt of a pseudo-correction: `pseudo_click` on the object, and the prior mask."""
    click = pseudo_click(mask, entropy)
    points = np.zeros((0, 2), np.float32) if click is None else np.array([click], np.float32)
    return Prompt(positive=points, mask=mask)


def operator_prompt(mask: BoolMask) -> Prompt:
    """What a person's answer starts from: the prior mask (bool [H, W]) alone."""
    return Prompt(mask=mask)
