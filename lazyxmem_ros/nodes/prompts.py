# SPDX-License-Identifier: Apache-2.0
"""Between the message Prompt and the Prompt of correctors: its only reader and its only writer."""

from __future__ import annotations

import math

from sensor_msgs.msg import Image
from std_msgs.msg import Header

from lazyxmem_ros import msg
from lazyxmem_ros.correction.base import Prompt, validate_fit
from lazyxmem_ros.nodes.conversions import (
    is_empty,
    mask_message,
    point_messages,
    read_mask,
    read_points,
    read_region,
    region_message,
)

MAX_PROMPTS = 64
"""Of one request of `correct_mask` at most; a client sends more in several."""
UNKNOWN_IOU = 0.0
"""What a message says where nobody knows the overlap to expect of a prior mask."""


def read_prompt(
    message: msg.Prompt, size: tuple[int, int], *, prior_iou: float = UNKNOWN_IOU
) -> Prompt:
    """Clicks, box and mask of a message for an image of `size` (H, W).

    prior_iou: the overlap with the truth that the mask is expected to have, 0..1.

    Raises PromptError where something does not fit the image, ImageError for a broken mask.
    """
    prompt = Prompt(
        positive=read_points(message.positive),
        negative=read_points(message.negative),
        box=read_region(message.box) if message.has_box else None,
        mask=None if is_empty(message.mask) else read_mask(message.mask, size),
        prior_iou=None if prior_iou == UNKNOWN_IOU else prior_iou,
    )
    validate_fit(prompt, size)
    return prompt


def prompt_message(prompt: Prompt, header: Header) -> msg.Prompt:
    """A prompt as a message; header: the image's. A box is widened to whole pixels.

    `prior_iou` is not part of it.
    """
    message = msg.Prompt(
        positive=point_messages(prompt.positive),
        negative=point_messages(prompt.negative),
        mask=Image() if prompt.mask is None else mask_message(prompt.mask, header),
    )
    if prompt.box is not None:
        x0, y0, x1, y1 = prompt.box
        message.has_box = True
        message.box = region_message((int(x0), int(y0), math.ceil(x1), math.ceil(y1)))
    return message
