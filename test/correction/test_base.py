# SPDX-License-Identifier: Apache-2.0
"""Prompts and what is refused of them."""

from __future__ import annotations

import numpy as np
import pytest

from lazyxmem_ros.correction import CorrectorError, Prompt, PromptError, make_corrector
from lazyxmem_ros.correction.base import (
    Corrector,
    mask_iou,
    objection,
    pixels_of,
    surroundings,
    validate_image,
    validate_prompt,
)

SIZE = (40, 60)
MASK = np.zeros(SIZE, bool)
MASK[10:20, 10:30] = True


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt([(0, 0)]),
        Prompt([(59, 39)]),
        Prompt([(-0.5, 39.4)]),
        Prompt(box=(0, 0, 60, 40)),
        Prompt(mask=MASK),
        Prompt(negative=[(12, 12)], mask=MASK),
        Prompt([(5, 5)], [(7, 7)], (0.5, 0.5, 9, 9), MASK),
        Prompt((5, 6)),  # one point without its list
        Prompt([(5, 5)], mask=np.zeros(SIZE, bool)),
    ],
)
def test_good_prompts(prompt):
    validate_prompt(prompt, SIZE)


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        (Prompt(), "the prompt is empty; send a positive point"),
        (Prompt(mask=np.zeros(SIZE, bool)), "the prompt is empty"),
        (Prompt(negative=[(5, 5)]), "only negative points; send a positive"),
        (Prompt([(60, 5)]), r"positive point \(60, 5\) lies outside the 60x40 image; send x"),
        (Prompt([(5, 5), (5, 40)]), r"positive point \(5, 40\) lies outside"),
        (Prompt([(5, 5)], [(-1, 5)]), r"negative point \(-1, 5\) lies outside"),
        (Prompt([(np.nan, 5)]), "outside"),
        (Prompt([(np.inf, 5)]), "outside"),
        (Prompt(box=(10, 10, 10, 20)), "not a box within the 60x40 image; send"),
        (Prompt(box=(20, 10, 10, 20)), "not a box"),
        (Prompt(box=(0, 0, 61, 20)), "not a box"),
        (Prompt(box=(-1, 0, 6, 20)), "not a box"),
        (Prompt(box=(0, 0, np.nan, 20)), "not a box"),
        (Prompt(mask=np.ones((60, 40), bool)), "the mask is 40x60 but the image 60x40; send"),
    ],
)
def test_bad_prompts_say_what_to_do(prompt, says):
    with pytest.raises(PromptError, match=says):
        validate_prompt(prompt, SIZE)


@pytest.mark.parametrize(
    "arguments",
    [
        {"positive": [(1, 2, 3)]},
        {"positive": "here"},
        {"negative": [[[1, 2]]]},
        {"box": (1, 2, 3)},
        {"box": "box"},
        {"box": 5},
        {"mask": np.ones((4, 4, 1), bool)},
    ],
)
def test_what_is_no_prompt_at_all(arguments):
    with pytest.raises(PromptError):
        Prompt(**arguments)


def test_a_prompt_converts_what_it_is_given():
    prompt = Prompt([(1, 2)], mask=np.array([[0, 255]], np.uint8), box=[0, 0, 1, 1])
    assert prompt.positive.dtype == np.float32
    assert prompt.negative.shape == (0, 2)
    assert prompt.mask.dtype == np.bool_
    assert prompt.mask.tolist() == [[False, True]]
    assert prompt.box == (0.0, 0.0, 1.0, 1.0)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 5), np.uint8),
        np.zeros((4, 5, 4), np.uint8),
        np.zeros((4, 5, 3), np.float32),
        np.zeros((0, 5, 3), np.uint8),
        [[1, 2, 3]],
    ],
)
def test_bad_images(image):
    with pytest.raises(PromptError):
        validate_image(image)


def test_pixels_of_points_at_the_edge():
    points = Prompt([(-0.5, -0.4), (59.49, 39.4), (3.5, 3.6)]).positive
    assert pixels_of(points, SIZE).tolist() == [[0, 0], [59, 39], [4, 4]]


def test_make_corrector():
    corrector = make_corrector("grabcut")
    assert isinstance(corrector, Corrector)
    assert corrector.name == "grabcut"
    with pytest.raises(CorrectorError, match="auto, refiner, grabcut, sam_hq"):
        make_corrector("magic")


@pytest.mark.parametrize(("expected", "better"), [(None, True), (0.3, True), (0.5, False)])
def test_a_pseudo_correction_promises_more_than_the_tracker_expects(
    expected: float | None, better: bool
) -> None:
    assert (objection(0.5, expected) == "") is better


def test_iou_of_masks():
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert mask_iou(a, b) == 0
    a[:2], b[1:3] = True, True
    assert mask_iou(a, b) == pytest.approx(1 / 3)
    assert mask_iou(a, a) == 1


def test_the_surroundings_of_a_mask_end_at_the_image():
    assert surroundings(MASK, 3) == (slice(7, 23), slice(7, 33))
    assert surroundings(MASK, 12)[0].start == 0
    assert MASK[surroundings(MASK, 25)].shape == (40, 55)
    assert surroundings(np.zeros(SIZE, bool), 3) is None


def test_a_bare_mask_is_told_from_one_to_start_from():
    empty, mask = Prompt(), Prompt(mask=MASK)
    assert (empty.is_empty, empty.is_only_mask) == (True, False)
    assert (mask.is_empty, mask.is_only_mask) == (False, True)
    nowhere = Prompt(mask=np.zeros(SIZE, bool))  # a person's word that the object is not there
    assert (nowhere.is_empty, nowhere.is_only_mask) == (False, True)
    for more in ({"positive": [(1, 2)]}, {"negative": [(1, 2)]}, {"box": (0, 0, 3, 3)}):
        for prompt in (Prompt(**more), Prompt(**more, mask=MASK)):
            assert (prompt.is_empty, prompt.is_only_mask) == (False, False)


def test_clicks_are_about_the_mask_that_was_seen():
    beside = Prompt(negative=[(12, 12)]).about(MASK, 0.7)
    assert beside.mask is MASK
    assert beside.prior_iou == 0.7
    np.testing.assert_array_equal(beside.negative, [(12, 12)])
    boxed = Prompt([(1, 2)], box=(0, 0, 3, 3))
    drawn = Prompt([(1, 2)], mask=~MASK)
    assert boxed.about(MASK, 0.7) is boxed
    assert drawn.about(MASK, 0.7) is drawn
