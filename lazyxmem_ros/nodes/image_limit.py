# SPDX-License-Identifier: Apache-2.0
"""The parameter `max_pixels` of every node that decodes a camera's images."""

from __future__ import annotations

from lazyxmem_ros.images import MAX_PIXELS
from lazyxmem_ros.nodes.parameters import Changes, ParameterSpec


def max_pixels_parameter(changes: Changes) -> ParameterSpec:
    """Its row in a node's table."""
    return ParameterSpec(
        "max_pixels",
        MAX_PIXELS,
        "Pixels of an image or label map at most; larger ones are refused before they are decoded. "
        "Tracker, correction service and console have one each.",
        bounds=(1, 2**31 - 1),
        changes=changes,
    )
