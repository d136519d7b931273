# SPDX-License-Identifier: Apache-2.0
"""Where the clock changes, what a person has said holds, or is lost as a whole."""

from unittest.mock import Mock

import pytest
import torch
from late_runs import (
    CALIBRATION,
    CONFIG,
    FIRST,
    FRAME_TIME,
    correction,
    run,
    start,
    step,
)
from random_clip import image, mask

from lazyxmem_ros.lazy import LazyTracker
from lazyxmem_ros.lazy import tracker as lazy_tracker
from lazyxmem_ros.xmem import XMem, XMemTracker


def told_frames(lazy: LazyTracker) -> set[int]:
    """The frames of which memory keeps what a person said."""
    memory = lazy.tracker.state().memory
    assert memory is not None
    return set(memory.told)


def portraits(lazy: LazyTracker) -> int:
    """How many there are of object 1."""
    kept = lazy._state.objects[1].looks.portraits
    assert kept is not None
    return len(kept)


def go_on(lazy: LazyTracker) -> None:
    """A few frames of another clock."""
    for index in range(3):
        lazy.step(image(50 + index), 5 + index)


@pytest.mark.parametrize("index", [10, 19])
def test_what_was_said_is_learnt_before(index: int, small_network: XMem) -> None:
    """Of the newest frame, which is open, or late."""
    lazy = start(small_network, CONFIG, CALIBRATION)
    run(lazy, {19: [correction(index, FIRST)]}, 19)
    lazy.change_clock()
    assert told_frames(lazy) == {index}
    go_on(lazy)
    assert portraits(lazy) == 2


def test_what_is_gone_through_is_bounded_in_time(
    small_network: XMem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is lost then is no portrait of the object either."""
    monkeypatch.setattr(lazy_tracker, "CLOCK_CATCH_UP_S", 0.0)
    lazy = start(small_network, CONFIG, CALIBRATION)
    run(lazy, {19: [correction(15, FIRST)]}, 19)
    lazy.change_clock()
    assert lazy.frames_behind == 0
    assert told_frames(lazy) == set()
    go_on(lazy)
    assert portraits(lazy) == 1


def test_a_past_that_fails_does_not_keep_the_clock_from_changing(
    small_network: XMem, monkeypatch: pytest.MonkeyPatch
) -> None:
    lazy = start(small_network, CONFIG, CALIBRATION)
    run(lazy, {19: [correction(10, FIRST)]}, 19)
    lazy.add_to_past({3: mask(30, 40)}, 12 * FRAME_TIME)
    with monkeypatch.context() as patch:
        patch.setattr(XMemTracker, "resegment", Mock(side_effect=torch.OutOfMemoryError("full")))
        lazy.change_clock()
    go_on(lazy)
    assert lazy.object_ids == (1, 2)
    assert told_frames(lazy) == set()
    assert portraits(lazy) == 1


def test_what_a_past_that_was_given_up_would_have_learnt_is_no_portrait(
    small_network: XMem, monkeypatch: pytest.MonkeyPatch
) -> None:
    lazy = start(small_network, CONFIG, CALIBRATION)
    run(lazy, {19: [correction(10, FIRST)]}, 19)
    with monkeypatch.context() as patch:
        patch.setattr(XMemTracker, "resegment", Mock(side_effect=torch.OutOfMemoryError("full")))
        for _ in range(3):
            with pytest.raises((torch.OutOfMemoryError, ValueError), match="full"):
                step(lazy, 20)
    for index in range(20, 25):
        step(lazy, index)
    assert lazy.frames_behind == 0
    assert portraits(lazy) == 1


@pytest.mark.parametrize("index", [10, 19])
def test_a_snapshot_before_memory_has_learnt_it_has_no_portrait_of_it_to_take(
    index: int, small_network: XMem
) -> None:
    lazy = start(small_network, CONFIG, CALIBRATION)
    run(lazy, {19: [correction(index, FIRST)]}, 19)
    lazy.resume(lazy.snapshot())
    assert told_frames(lazy) == set()
    go_on(lazy)
    assert portraits(lazy) == 1


def test_catching_up_goes_on_where_it_went_back_after_taking_over(small_network: XMem) -> None:
    """Corrections without end could not wait for it."""
    lazy = start(small_network)
    answers = {i + 20: [correction(i, {1: mask(i % 30, 10)})] for i in range(5, 31, 5)}
    run(lazy, answers, 50)
    assert lazy.frames_behind > 0
    assert lazy.catch_up(600.0) == 0


@pytest.mark.parametrize("arriving", [False, True])
def test_where_objects_are_is_kept_unless_memory_is_then_of_an_earlier_frame(
    arriving: bool, small_network: XMem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy_tracker, "CLOCK_CATCH_UP_S", 0.0)
    lazy = start(small_network)
    run(lazy, {}, 19)
    if arriving:
        lazy.add_to_past({3: mask(30, 40)}, 10 * FRAME_TIME)
    lazy.change_clock()
    now = lazy.tracker.state()
    assert bool(now.places) is not arriving
    assert any(hidden.any() for hidden in now.hidden.values()) is not arriving
    go_on(lazy)
    assert len(lazy.object_ids) == 2 + arriving
