# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from lazyxmem_ros.evaluation.errors import MetricError
from lazyxmem_ros.evaluation.simulated_operator import (
    ErrorSpot,
    Gesture,
    OperatorConfig,
    SimulatedOperator,
    largest_error,
)

SECOND = 1_000_000_000


def rectangle(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((60, 100), bool)
    mask[y0:y1, x0:x1] = True
    return mask


NOTHING = np.zeros((60, 100), bool)


def test_clicks_the_middle_of_the_visible_object() -> None:
    prompt = SimulatedOperator().click(rectangle(10, 20, 21, 41), NOTHING)
    assert prompt is not None
    (point,) = prompt.positive
    # Every pixel of the middle column far from both ends is equally deep inside.
    assert point[0] == 15
    assert 25 <= point[1] <= 35
    assert len(prompt.negative) == 0


@pytest.mark.parametrize("gesture", Gesture)
def test_says_by_an_empty_mask_that_an_object_is_not_there(gesture: Gesture) -> None:
    """A click beside it may leave a rest of what is not it."""
    operator = SimulatedOperator(OperatorConfig(gesture))
    prompt = operator.click(NOTHING, rectangle(50, 10, 61, 21))
    assert prompt is not None
    assert prompt.is_only_mask
    assert prompt.mask is not None
    assert not prompt.mask.any()
    assert operator.click(NOTHING, NOTHING) is None


def test_largest_error_may_be_missing_or_superfluous() -> None:
    operator = SimulatedOperator(OperatorConfig(gesture=Gesture.LARGEST_ERROR))
    truth = rectangle(0, 0, 40, 40)
    missing = operator.click(truth, rectangle(0, 0, 11, 40))
    assert missing is not None
    assert truth[int(missing.positive[0, 1]), int(missing.positive[0, 0])]
    assert missing.positive[0, 0] > 11
    superfluous = operator.click(truth, rectangle(0, 0, 90, 40))
    assert superfluous is not None
    assert superfluous.negative[0, 0] > 40
    assert operator.click(truth, truth) is None


def test_the_largest_error_is_the_deepest_not_the_widest() -> None:
    long_and_thin, square = rectangle(0, 0, 100, 4), rectangle(40, 20, 51, 31)
    assert largest_error(long_and_thin, square) == ErrorSpot(45, 25, 6.0, missing=False)
    assert largest_error(square, square) == ErrorSpot(45, 25, 6.0, missing=True)
    assert largest_error(NOTHING, NOTHING) is None


def test_several_clicks_point_at_different_errors() -> None:
    truth, predicted = rectangle(0, 0, 40, 40), rectangle(20, 0, 61, 40)
    prompt = pointing(3).click(truth, predicted)
    assert prompt is not None
    clicks = [*prompt.positive, *prompt.negative]
    assert len(clicks) == 3
    assert len(prompt.positive) >= 1
    assert len(prompt.negative) >= 1
    for points, on in ((prompt.positive, True), (prompt.negative, False)):
        for x, y in points.astype(int):
            assert truth[y, x] == on != predicted[y, x]
    first = pointing(1).click(truth, predicted)
    assert first is not None
    np.testing.assert_array_equal(first.negative, prompt.negative[:1])


def test_a_click_that_nothing_is_left_for_is_not_made() -> None:
    truth, sliver = rectangle(0, 0, 40, 40), rectangle(0, 0, 43, 40)
    prompt = pointing(5).click(truth, sliver)
    assert prompt is not None
    assert len(prompt.negative) == 1
    assert len(prompt.positive) == 0
    with pytest.raises(MetricError, match="at least 1"):
        pointing(0)


def pointing(clicks: int) -> SimulatedOperator:
    return SimulatedOperator(OperatorConfig(gesture=Gesture.LARGEST_ERROR, clicks=clicks))


def test_box_and_mask() -> None:
    truth = rectangle(10, 20, 31, 41)
    boxed = SimulatedOperator(OperatorConfig(gesture=Gesture.BOX)).click(truth, NOTHING)
    assert boxed is not None
    assert boxed.box == (10, 20, 31, 41)
    np.testing.assert_array_equal(boxed.positive, [[20, 30]])
    drawn = SimulatedOperator(OperatorConfig(gesture=Gesture.MASK)).click(truth, NOTHING)
    assert drawn is not None
    assert drawn.mask is not None
    np.testing.assert_array_equal(drawn.mask, truth)


@pytest.mark.parametrize("gesture", [Gesture.LARGEST_ERROR, Gesture.BOX, Gesture.MASK])
def test_an_object_out_of_view_is_said_to_be_so(gesture: Gesture) -> None:
    """As the console's V does: clicks beside it would leave a rest of the wrong mask."""
    predicted = np.zeros((30, 70), bool)
    predicted[5:25, 10:60] = True
    operator = SimulatedOperator(OperatorConfig(gesture=gesture))
    prompt = operator.click(np.zeros_like(predicted), predicted)
    assert prompt is not None
    assert prompt.is_only_mask
    assert prompt.mask is not None
    assert not prompt.mask.any()
    assert operator.click(np.zeros_like(predicted), np.zeros_like(predicted)) is None


def test_noise_spreads_stays_inside_and_repeats() -> None:
    truth = rectangle(0, 0, 3, 3)
    config = OperatorConfig(gesture=Gesture.BOX, click_noise=8.0, seed=3)

    def answers() -> list[tuple[float, ...]]:
        operator = SimulatedOperator(config)
        prompts = [operator.click(truth, NOTHING) for _ in range(50)]
        return [(*prompt.positive[0], *prompt.box) for prompt in prompts if prompt and prompt.box]

    points = np.array(answers())
    assert len(points) == 50
    assert len(np.unique(points[:, 0])) > 20
    assert points.min() >= 0
    assert points[:, [0, 2, 4]].max() <= 100
    assert (points[:, 4] - points[:, 2]).min() >= 2
    np.testing.assert_array_equal(points, answers())


def test_one_request_after_the_other() -> None:
    operator = SimulatedOperator(OperatorConfig(reaction_delay=1.5))
    assert operator.answer_time(10 * SECOND) == 11.5 * SECOND
    assert operator.answer_time(11 * SECOND) == 13 * SECOND
    assert operator.answer_time(20 * SECOND) == 21.5 * SECOND
    # A recording that is played again.
    assert operator.answer_time(2 * SECOND) == 3.5 * SECOND
    assert operator.answer_time(3 * SECOND) == 5 * SECOND


def test_bad_settings_and_shapes() -> None:
    with pytest.raises(MetricError, match="click_noise"):
        OperatorConfig(click_noise=-1)
    with pytest.raises(MetricError, match="seed must be at least 0"):
        OperatorConfig(seed=-1)
    with pytest.raises(MetricError, match="reaction_delay"):
        OperatorConfig(reaction_delay=float("nan"))
    with pytest.raises(MetricError, match="one size"):
        SimulatedOperator().click(NOTHING, NOTHING[:10])
