# SPDX-License-Identifier: Apache-2.0
"""Prompts as messages: what is written is read, and one set of limits holds for all of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from geometry_msgs.msg import Point
from node_graph import header
from sensor_msgs.msg import RegionOfInterest

from lazyxmem_ros import msg
from lazyxmem_ros.correction import Prompt, PromptError
from lazyxmem_ros.images import MAX_PIXELS, ImageError
from lazyxmem_ros.nodes.prompts import prompt_message, read_prompt

HEIGHT, WIDTH = SIZE = (48, 64)
MASK = np.zeros(SIZE, bool)
MASK[3:9, 5:20] = True


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(),
        Prompt(positive=[(1.5, 2), (60, 40)], negative=[(63.25, 0)]),
        Prompt(box=(3, 4, 64, 48)),
        Prompt(mask=MASK),
        Prompt(mask=np.zeros(SIZE, bool)),
        Prompt([(5, 6)], [(7, 8)], (1, 2, 30, 40), MASK),
    ],
)
def test_what_is_written_is_read(prompt: Prompt) -> None:
    message = prompt_message(prompt, header(3))
    read = read_prompt(message, SIZE)
    np.testing.assert_array_equal(read.positive, prompt.positive)
    np.testing.assert_array_equal(read.negative, prompt.negative)
    assert read.box == prompt.box
    assert (read.mask is None) == (prompt.mask is None)
    if prompt.mask is not None:
        np.testing.assert_array_equal(read.mask, prompt.mask)
        assert message.mask.header == header(3)
    assert (read.is_empty, read.is_only_mask) == (prompt.is_empty, prompt.is_only_mask)


def test_a_mask_may_be_as_large_as_its_image_which_was_let_in() -> None:
    side = math.isqrt(MAX_PIXELS) + 1
    message = prompt_message(Prompt(mask=np.zeros((side, side), bool)), header(0))
    assert read_prompt(message, (side, side)).is_only_mask
    with pytest.raises(ImageError, match="max_pixels"):
        read_prompt(message, SIZE)


def test_a_box_is_widened_to_whole_pixels() -> None:
    box = prompt_message(Prompt(box=(3.6, 4.5, 20.1, 30.0)), header(0)).box
    assert box == RegionOfInterest(x_offset=3, y_offset=4, width=18, height=26)


def test_an_unknown_iou_is_none() -> None:
    message = prompt_message(Prompt(mask=MASK), header(0))
    assert read_prompt(message, SIZE).prior_iou is None
    assert read_prompt(message, SIZE, prior_iou=0.0).prior_iou is None
    assert read_prompt(message, SIZE, prior_iou=0.75).prior_iou == 0.75


@pytest.mark.parametrize(
    ("x", "y", "inside"),
    [
        (-0.5, -0.5, True),
        (63.4, 47.4, True),
        (-0.6, 0.0, False),
        (63.5, 0.0, False),
        (0.0, 47.5, False),
        (float("nan"), 0.0, False),
    ],
)
def test_a_click_lies_in_a_pixel(x: float, y: float, inside: bool) -> None:
    message = msg.Prompt(positive=[Point(x=x, y=y)])
    if inside:
        np.testing.assert_array_equal(read_prompt(message, SIZE).positive, np.float32([[x, y]]))
    else:
        with pytest.raises(PromptError, match="outside the 64x48 image; send x within"):
            read_prompt(message, SIZE)
