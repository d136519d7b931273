# SPDX-License-Identifier: Apache-2.0
"""Reads image files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lazyxmem_ros.data.errors import DatasetError


def read_image_file(path: Path) -> NDArray[np.uint8]:
    """An image file as RGB uint8 [H, W, 3]; raises DatasetError where it does not decode."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise DatasetError(f"{path}: the image cannot be read")
    return np.ascontiguousarray(image[..., ::-1], dtype=np.uint8)
