# SPDX-License-Identifier: Apache-2.0
"""Frames that fail or have to wait while the past is gone through again."""

from unittest.mock import Mock

import pytest
import torch
from late_runs import (
    FIRST,
    FRAME_TIME,
    NEVER,
    SECOND_ONE,
    Instant,
    add,
    answer,
    answered_at_once,
    catch_up,
    correction,
    run,
    same,
    start,
    step,
)
from random_clip import mask

from lazyxmem_ros.lazy import judging
from lazyxmem_ros.lazy.past import ATTEMPTS
from lazyxmem_ros.xmem import TrackerError, XMem, XMemTracker
from lazyxmem_ros.xmem.token_store import TokenStore


def test_what_corrections_could_not_wait_for_is_gone_through_after_the_taking_over(
    small_network: XMem,
) -> None:
    answers = {index: {1: mask(index % 30, 10)} for index in range(5, 56, 5)}
    acts = {index: [answer(index, masks)] for index, masks in answers.items()}
    late = start(small_network)
    corrections = {i + 20: [correction(i, masks)] for i, masks in answers.items()}
    results = run(late, corrections, 75) | catch_up(late, 76)
    assert sum(bool(result.caught_up) for result in results.values()) > 1
    assert same(Instant(start(small_network), acts), late)


def test_what_a_correction_could_not_wait_for_outlasts_a_failure(
    small_network: XMem, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {index: {1: mask(index, 10)} for index in (5, 10, 15, 20)}
    acts = {index: [answer(index, masks)] for index, masks in answers.items()}
    late = start(small_network)
    run(late, {i + 20: [correction(i, masks)] for i, masks in answers.items()}, 46)
    late.close()
    with monkeypatch.context() as patch:
        patch.setattr(XMemTracker, "resegment", Mock(side_effect=torch.OutOfMemoryError("full")))
        with pytest.raises(torch.OutOfMemoryError):
            step(late, 47)
    catch_up(late, 47)
    assert same(Instant(start(small_network), acts), late)


@pytest.mark.parametrize("part", ["encode_value", "decode"])
@pytest.mark.parametrize("what", ["correction", "object"])
def test_a_frame_that_fails_is_gone_through_once_more(
    what: str, part: str, small_network: XMem, monkeypatch: pytest.MonkeyPatch
) -> None:
    third, failing = {3: mask(30, 40)}, start(small_network)
    run(failing, {}, 12)
    if what == "correction":
        instant = answered_at_once(small_network, 5)
        assert failing.apply(correction(5, FIRST)).applied
    else:
        instant = Instant(start(small_network), {5: [add(third)]})
        assert failing.add_to_past(third, 5 * FRAME_TIME).applied
    failing.close()
    with monkeypatch.context() as patch:
        full = Mock(side_effect=torch.OutOfMemoryError("full"))
        patch.setattr(failing.tracker.network, part, full)
        with pytest.raises(torch.OutOfMemoryError):
            step(failing, 13)
    results = catch_up(failing, 13)
    last = max(results)
    assert results[last].tracks == instant[last].tracks
    assert same(instant, failing)


def test_a_past_that_always_fails_is_given_up_and_tracking_goes_on(
    small_network: XMem, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = start(small_network)
    run(late, {}, 12)
    late.add_to_past({3: mask(30, 40)}, 5 * FRAME_TIME)
    late.apply(correction(6, FIRST))
    late.close()
    with monkeypatch.context() as patch:
        broken = Mock(side_effect=torch.OutOfMemoryError("full"))
        patch.setattr(XMemTracker, "resegment", broken)
        for _ in range(ATTEMPTS - 1):
            with pytest.raises(torch.OutOfMemoryError):
                step(late, 13)
        with pytest.raises(TrackerError, match="not learnt, and tracking goes on without it: full"):
            step(late, 13)
        assert [t.object_id for t in step(late, 13).tracks] == [1, 2]
    assert late.arriving_ids == ()
    run_on = [step(late, index) for index in range(14, 30)]
    assert late.frames_behind == 0
    assert late.apply(correction(20, SECOND_ONE)).applied
    assert all(len(result.tracks) == 2 for result in run_on)


FULL = Mock(side_effect=torch.OutOfMemoryError("full"))


@pytest.mark.parametrize("when", ["a mask is given", "nothing is given"])
def test_a_frame_that_could_not_be_measured_is_gone_through_again(
    when: str, small_network: XMem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory has learnt it."""
    third = {3: mask(30, 40)} if when == "a mask is given" else {}
    late = start(small_network)
    run(late, {}, 7)
    with monkeypatch.context() as patch:
        patch.setattr(judging, "measure", FULL)
        with pytest.raises(torch.OutOfMemoryError):
            step(late, 8, masks=third)
    for index in range(9, 13):
        step(late, index)
    assert late.apply(correction(5, FIRST)).applied
    catch_up(late, 13)
    assert late.object_ids == late.followed_ids == (1, 2, *third)
    assert same(Instant(start(small_network), {5: [answer(5, FIRST)]}, {8: third}), late)


def test_a_frame_of_which_memory_could_not_be_copied_is_gone_through_again(
    small_network: XMem, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = start(small_network)
    run(late, {}, 9)
    with monkeypatch.context() as patch:
        patch.setattr(TokenStore, "state", FULL)
        step(late, 10)  # a copy is due
    run_on = [step(late, index) for index in range(11, 14)]
    assert late.apply(correction(12, FIRST)).applied
    catch_up(late, 14)
    assert all(len(result.tracks) == 2 for result in run_on)
    assert same(answered_at_once(small_network, 12), late)


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("failing", ["preview", "correct"])
def test_a_correction_that_fails_leaves_nothing_behind(
    closed: bool, failing: str, small_network: XMem, monkeypatch: pytest.MonkeyPatch
) -> None:
    lazy = start(small_network)
    run(lazy, {}, 5)
    if closed:
        lazy.close()
    with monkeypatch.context() as patch:
        patch.setattr(XMemTracker, failing, FULL)
        if failing == "preview" or closed:
            with pytest.raises(torch.OutOfMemoryError):
                lazy.apply(correction(5, FIRST))
    assert not lazy.retract(5 * FRAME_TIME, 1).applied
    for index in range(6, 12):
        step(lazy, index)
    assert same(answered_at_once(small_network, NEVER), lazy)


def test_an_object_whose_earlier_view_was_given_up_begins_where_it_did(
    small_network: XMem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it is found again when another one is arriving."""
    late = start(small_network)
    run(late, {}, 15, at12={"masks": {3: mask(2, 44)}})
    late.add_to_past({3: mask(26, 40)}, 7 * FRAME_TIME)
    with monkeypatch.context() as patch:
        patch.setattr(XMemTracker, "resegment", FULL)
        for _ in range(ATTEMPTS):
            with pytest.raises((torch.OutOfMemoryError, TrackerError), match="full"):
                step(late, 16)
    for index in range(16, 24):
        step(late, index)
    late.add_to_past({4: mask(30, 40)}, 22 * FRAME_TIME)
    assert late.snapshot().tracker.births == {1: 0, 2: 0, 3: 12, 4: 22}
