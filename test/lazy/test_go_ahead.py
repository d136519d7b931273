# SPDX-License-Identifier: Apache-2.0
"""Past frames that are gone through before their time, while no frame comes."""

from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch
from late_runs import (
    CONFIG,
    FIRST,
    FRAME_TIME,
    LONGEST,
    SECOND_ONE,
    Instant,
    add,
    answer,
    answered_at_once,
    correction,
    run,
    same,
    start,
    step,
)
from random_clip import mask

from lazyxmem_ros.lazy import LazyTracker
from lazyxmem_ros.lazy.replay import FRAMES_AT_LEAST
from lazyxmem_ros.xmem import XMem, XMemTracker


def step_and_go_ahead(lazy: LazyTracker, first: int, at_most: int) -> int:
    """Steps from frame `first` on until it has caught up, with so many frames gone through between
    any two; returns the number of the last frame.
    """
    for index in range(first, first + LONGEST):
        if step(lazy, index).caught_up:
            return index
        for _ in range(at_most):
            if not lazy.go_ahead():
                break
    raise AssertionError(f"{lazy.frames_behind} frames behind after {LONGEST} frames")


@pytest.mark.parametrize("at_most", [1, 3, LONGEST])
def test_it_comes_to_the_same_and_not_later(at_most: int, small_network: XMem) -> None:
    late, leisurely = start(small_network), start(small_network)
    for lazy in (late, leisurely):
        run(lazy, {30: [correction(5, FIRST)]}, 30)
    last = step_and_go_ahead(late, 31, at_most)
    assert same(answered_at_once(small_network, 5), late)
    usual = step_and_go_ahead(leisurely, 31, 0)
    assert last <= usual
    if at_most > FRAMES_AT_LEAST:
        assert last < usual
    assert not late.go_ahead()


@pytest.mark.parametrize("at_most", [1, LONGEST])
def test_with_more_that_is_said_meanwhile_it_comes_to_the_same(
    at_most: int, small_network: XMem
) -> None:
    third = {3: mask(30, 40)}
    acts = {5: [answer(5, FIRST)], 9: [answer(9, SECOND_ONE)], 20: [add(third)]}
    instant = Instant(start(small_network), acts)
    late = start(small_network)
    run(late, {30: [correction(9, SECOND_ONE)]}, 30)
    for index, say in [
        (31, lambda: late.apply(correction(5, FIRST))),
        (33, lambda: late.add_to_past(third, 20 * FRAME_TIME)),
    ]:
        for number in range(index, index + 2):
            step(late, number)
            for _ in range(at_most):
                late.go_ahead()
        assert say().applied
    step_and_go_ahead(late, 35, at_most)
    assert same(instant, late)


@pytest.fixture
def gone_through(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Indices of the past frames that were."""
    indices = []
    resegment = XMemTracker.resegment

    def noted(self: XMemTracker, past):
        indices.append(past.index)
        return resegment(self, past)

    monkeypatch.setattr(XMemTracker, "resegment", noted)
    return indices


def test_a_step_is_spared_what_was_done_before(
    small_network: XMem, gone_through: list[int]
) -> None:
    late = start(small_network)
    run(late, {40: [correction(5, FIRST)]}, 43)
    gone_through.clear()
    step(late, 44)
    assert len(gone_through) == FRAMES_AT_LEAST
    for ahead in range(FRAMES_AT_LEAST + 1):
        for _ in range(ahead):
            assert late.go_ahead()
        gone_through.clear()
        step(late, 45 + ahead)
        assert len(gone_through) == max(FRAMES_AT_LEAST - ahead, 0)


def test_steps_that_spare_go_through_less_and_arrive(
    small_network: XMem, gone_through: list[int]
) -> None:
    """Whatever the budget; what was gone through ahead counts."""
    late = start(small_network, replace(CONFIG, catch_up_budget=60.0))
    run(late, {40: [correction(5, FIRST)]}, 40)
    for index in (41, 42, 43):  # the short way, and the corrected frame itself
        step(late, index, sparing=True)
    counts = []
    for index in range(44, 51):
        if index == 47:
            assert late.go_ahead()
        gone_through.clear()
        step(late, index, sparing=True)
        counts.append(len(gone_through))
    assert counts == [2, 1, 2, 0, 2, 1, 2]
    last = next(i for i in range(51, 51 + LONGEST) if step(late, i, sparing=True).caught_up)
    assert last < 41 + 2 * 45
    assert same(answered_at_once(small_network, 5), late)


def test_what_was_only_just_said_waits_for_the_next_frame(small_network: XMem) -> None:
    """Which begins with the short way, so that it shows soon."""
    late = start(small_network)
    run(late, {30: [correction(5, FIRST)]}, 30)
    before = late.frames_behind
    assert not late.go_ahead()
    assert late.frames_behind == before


def test_a_failure_is_told_once_and_the_next_step_tries_again(
    small_network: XMem, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = start(small_network)
    run(late, {30: [correction(5, FIRST)]}, 33)
    with monkeypatch.context() as patch:
        full = Mock(side_effect=torch.OutOfMemoryError("full"))
        patch.setattr(XMemTracker, "resegment", full)
        with pytest.raises(torch.OutOfMemoryError):
            late.go_ahead()
        assert not late.go_ahead()
        assert full.call_count == 1
    step_and_go_ahead(late, 34, 2)
    assert same(answered_at_once(small_network, 5), late)
