# SPDX-License-Identifier: Apache-2.0
"""GrabCut on pictures whose truth is known, and on everything that could break it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lazyxmem_ros.correction import Prompt, PromptError
from lazyxmem_ros.correction.grabcut import GrabCutCorrector

SIZE = (160, 200)
refine = GrabCutCorrector().refine


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / max((a | b).sum(), 1)


def ellipse(x: int, y: int, rx: int, ry: int, size=SIZE) -> np.ndarray:
    canvas = np.zeros(size, np.uint8)
    cv2.ellipse(canvas, (x, y), (rx, ry), 0, 0, 360, (1,), -1)
    return canvas > 0


def picture(masks_and_colours, size=SIZE, seed=0) -> np.ndarray:
    """Blurred noise around each region's colour."""
    generator = np.random.default_rng(seed)
    image = np.full((*size, 3), (90, 110, 70), np.float32)
    for mask, colour in masks_and_colours:
        image[mask] = colour
    noise = cv2.GaussianBlur(generator.normal(0, 60, image.shape).astype(np.float32), (0, 0), 1.2)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


RED, BLUE = (200, 60, 50), (50, 70, 190)
TARGET = ellipse(80, 80, 34, 24)
OTHER = ellipse(165, 120, 20, 25)
IMAGE = picture([(TARGET, RED), (OTHER, BLUE)])


def one(image, prompt):
    (result,) = refine(image, [prompt])
    assert result.mask.shape == image.shape[:2]
    assert result.mask.dtype == np.bool_
    assert 0 <= result.score <= 1
    return result


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt([(80, 80)]),
        Prompt([(60, 84)]),
        Prompt(box=(44, 54, 117, 107)),
        Prompt([(80, 80)], box=(44, 54, 117, 107)),
        Prompt(mask=TARGET),
        Prompt(mask=ellipse(84, 83, 34, 24)),
        Prompt([(80, 80)], mask=ellipse(80, 80, 28, 20)),
        Prompt([(80, 80)], mask=ellipse(80, 80, 39, 29)),
    ],
    ids=["click", "off-centre", "box", "click+box", "prior", "shifted", "shrunk", "grown"],
)
def test_every_kind_of_prompt_finds_the_object(prompt):
    result = one(IMAGE, prompt)
    assert iou(result.mask, TARGET) > 0.9
    assert result.score > 0.5


def test_a_click_elsewhere_moves_the_object():
    """The tracker sits on the blue look-alike; the operator clicks the red one."""
    result = one(IMAGE, Prompt([(80, 80)], mask=OTHER))
    assert iou(result.mask, TARGET) > 0.9


def test_a_negative_click_cuts_a_distractor_off():
    both = TARGET | OTHER
    result = one(IMAGE, Prompt([(80, 80)], [(165, 120)], mask=both))
    assert iou(result.mask, TARGET) > 0.85
    assert not result.mask[120, 165]


def test_a_negative_click_alone_may_say_that_nothing_is_there():
    result = one(IMAGE, Prompt(negative=[(165, 120)], mask=OTHER))
    assert not result.mask.any()


def test_a_negative_click_alone_leaves_the_rest_of_the_prior():
    result = one(IMAGE, Prompt(negative=[(165, 120)], mask=TARGET | OTHER))
    assert iou(result.mask, TARGET) > 0.8


def test_clicks_are_obeyed():
    result = one(IMAGE, Prompt([(80, 80), (10, 10)], [(82, 80)], mask=TARGET))
    assert result.mask[80, 80]
    assert result.mask[10, 10]
    assert not result.mask[80, 82]


def test_a_prior_of_much_the_same_object_is_refined_not_replaced():
    rough = cv2.dilate(TARGET.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    assert iou(one(IMAGE, Prompt(mask=rough)).mask, TARGET) > iou(rough, TARGET)


def test_the_same_prompt_gives_the_same_mask():
    prompt = Prompt([(80, 80)])
    first = one(IMAGE, prompt)
    cv2.setRNGSeed(7)
    refine(picture([], seed=3), [Prompt([(5, 5)])])
    again = one(IMAGE, prompt)
    assert np.array_equal(first.mask, again.mask)
    assert first.score == again.score


def test_each_prompt_is_answered_apart():
    results = refine(IMAGE, [Prompt([(80, 80)]), Prompt([(165, 120)])], image_key="any")
    assert iou(results[0].mask, TARGET) > 0.9
    assert iou(results[1].mask, OTHER) > 0.85
    assert refine(IMAGE, []) == []


def test_the_image_is_left_alone():
    before = IMAGE.copy()
    one(IMAGE, Prompt([(80, 80)], mask=TARGET))
    assert np.array_equal(IMAGE, before)


def test_a_large_image_is_worked_on_in_a_crop_and_reduced():
    size = (900, 1400)
    target = ellipse(700, 450, 260, 180, size)
    image = picture([(target, RED)], size)
    assert iou(one(image, Prompt(mask=ellipse(715, 462, 260, 180, size))).mask, target) > 0.93


# ---- nothing breaks it


def extremes():
    flat = np.full((*SIZE, 3), 128, np.uint8)
    everywhere, nowhere = np.ones(SIZE, bool), np.zeros(SIZE, bool)
    dot = nowhere.copy()
    dot[80, 80] = True
    far = nowhere.copy()
    far[0, 0] = far[-1, -1] = True
    return {
        "one colour": (flat, Prompt([(80, 80)])),
        "one colour, prior": (flat, Prompt(mask=TARGET)),
        "black": (np.zeros_like(flat), Prompt([(80, 80)], [(81, 80)])),
        "prior everywhere": (IMAGE, Prompt(mask=everywhere)),
        "prior and negative everywhere": (IMAGE, Prompt(negative=[(3, 3)], mask=everywhere)),
        "box of the whole image": (IMAGE, Prompt(box=(0, 0, 200, 160))),
        "box of one pixel": (IMAGE, Prompt(box=(80, 80, 81, 81))),
        "box of less than a pixel": (IMAGE, Prompt(box=(80.2, 80.2, 80.4, 80.4))),
        "prior of one pixel": (IMAGE, Prompt(mask=dot)),
        "prior of two far pixels": (IMAGE, Prompt(mask=far)),
        "prior outside the box": (IMAGE, Prompt(box=(0, 0, 30, 30), mask=TARGET)),
        "click outside the box": (IMAGE, Prompt([(150, 20)], box=(0, 0, 30, 30))),
        "clicks on one another": (IMAGE, Prompt([(80, 80)], [(80, 80)])),
        "corner": (IMAGE, Prompt([(0, 0)])),
        "other corner": (IMAGE, Prompt([(199, 159)], mask=TARGET)),
        "many clicks": (IMAGE, Prompt([(x, 80) for x in range(0, 200, 5)])),
        "one pixel": (np.zeros((1, 1, 3), np.uint8), Prompt([(0, 0)])),
        "one row": (np.zeros((1, 50, 3), np.uint8), Prompt([(20, 0)])),
        "one column": (np.zeros((50, 1, 3), np.uint8), Prompt(box=(0, 10, 1, 20))),
        "three by three": (np.zeros((3, 3, 3), np.uint8), Prompt([(1, 1)], [(0, 0)])),
        "thin": (np.zeros((3, 2000, 3), np.uint8), Prompt(mask=np.ones((3, 2000), bool))),
    }


@pytest.mark.parametrize("name", list(extremes()))
def test_extremes(name):
    image, prompt = extremes()[name]
    result = one(image, prompt)
    for x, y in np.rint(prompt.positive).astype(int):
        assert result.mask[y, x]


def test_noise_never_raises():
    generator = np.random.default_rng(5)
    for _ in range(25):
        size = tuple(generator.integers(4, 120, 2))
        image = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
        points = generator.random((4, 2)) * (np.array(size)[::-1] - 1)
        mask = generator.random(size) < generator.random()
        one(image, Prompt(points[:2], points[2:], mask=mask))


@pytest.mark.parametrize(
    "prompt", [Prompt(), Prompt([(500, 5)]), Prompt(mask=np.ones((3, 3), bool))]
)
def test_bad_prompts_are_refused_before_any_work(prompt):
    with pytest.raises(PromptError):
        refine(IMAGE, [Prompt([(80, 80)]), prompt])


def test_bad_images_are_refused():
    with pytest.raises(PromptError):
        refine(np.zeros((5, 5), np.uint8), [Prompt([(1, 1)])])
