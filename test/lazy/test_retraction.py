# SPDX-License-Identifier: Apache-2.0
"""A correction that is taken back has never been given, to the last bit."""

import gc
import math
import weakref
from dataclasses import replace

import numpy as np
import pytest
from late_runs import (
    CALIBRATION,
    CONFIG,
    FIRST,
    FRAME_TIME,
    SECOND_ONE,
    correction,
    run,
    same,
    start,
    step,
)
from random_clip import mask

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.lazy import LazyTracker, Source
from lazyxmem_ros.xmem import XMem

OTHER = {1: mask(12, 22)}
"""Overlaps with FIRST and with SECOND_ONE."""


def take_back(lazy: LazyTracker, index: int, object_id: int = 1) -> str:
    outcome = lazy.retract(index * FRAME_TIME, object_id)
    assert outcome.applied, outcome.reason
    assert outcome.labels is not None
    return outcome.reason


def equal(a: LazyTracker, b: LazyTracker) -> bool:
    """Everything: the next masks, memory, what the policy and the predicted IoU go by."""
    a.close()
    b.close()
    one, other = a.snapshot(), b.snapshot()
    for index, item in one.objects.items():
        twin = other.objects[index]
        assert item.history == twin.history
        assert item.corrected == twin.corrected
        assert item.looks.told == twin.looks.told
    last = a._state.newest.index
    shown = [step(lazy, last + 1) for lazy in (a, b)]
    tracks = [[(t.predicted_iou, t.uncertainty) for t in result.tracks] for result in shown]
    return same(a, b) and tracks[0] == tracks[1]


@pytest.mark.parametrize(
    ("after", "index", "delay"),
    # Frame 5 has a copy of memory of its own, 7 lies between two.
    [(0, 5, 0), (2, 7, 0), (0, 7, 3), (2, 5, 3)],
)
def test_it_is_as_if_it_had_never_been_given(
    after: int, index: int, delay: int, small_network: XMem
) -> None:
    never, taken = (start(small_network, CONFIG, CALIBRATION) for _ in range(2))
    run(never, {}, index + delay + after)
    run(taken, {index + delay: [correction(index, FIRST)]}, index + delay + after)
    take_back(taken, index)
    for number in range(index + delay + after + 1, 24):
        step(never, number)
        step(taken, number)
    assert taken.frames_behind == 0
    assert equal(never, taken)


def test_that_test_can_fail(small_network: XMem) -> None:
    never, given = (start(small_network, CONFIG, CALIBRATION) for _ in range(2))
    run(never, {}, 10)
    run(given, {5: [correction(5, FIRST)]}, 10)
    assert not same(never, given)


@pytest.mark.parametrize("order", [(5, 9), (9, 5)])
def test_of_several_the_others_hold(order: tuple[int, int], small_network: XMem) -> None:
    """Late ones and instant ones, on other frames."""
    kept, gone = order
    never, taken = (start(small_network, CONFIG, CALIBRATION) for _ in range(2))
    late = {kept + 3: [correction(kept, FIRST)]}
    run(never, late, 12)
    run(taken, {**late, gone: [correction(gone, OTHER)]}, 12)
    take_back(taken, gone)
    for number in range(13, 28):
        step(never, number)
        step(taken, number)
    assert equal(never, taken)


@pytest.mark.parametrize("at", [9, 11])
def test_that_it_is_not_there_has_not_been_said_either(at: int, small_network: XMem) -> None:
    """After an earlier time that it was said, which counts."""
    absent = {1: np.zeros_like(FIRST[1])}
    never, taken = (start(small_network, CONFIG, CALIBRATION) for _ in range(2))
    first = {5: [correction(5, absent)]}
    run(never, first, at)
    run(taken, {**first, at: [correction(9, absent)]}, at)
    assert taken._state.objects[1].history.absences == never._state.objects[1].history.absences + 1
    take_back(taken, 9)
    for number in range(at + 1, 18):
        step(never, number)
        step(taken, number)
    assert equal(never, taken)


@pytest.mark.parametrize("at", [5, 8])
@pytest.mark.parametrize("gone", [0, 1, 2])
def test_on_one_frame_the_others_get_their_pixels_back(
    gone: int, at: int, small_network: XMem
) -> None:
    """Instant and late ones that overlap and replace each other."""
    given = [FIRST, SECOND_ONE, OTHER]
    never, taken = (start(small_network, CONFIG, CALIBRATION) for _ in range(2))
    run(never, {at: [correction(5, m) for n, m in enumerate(given) if n != gone]}, at)
    run(taken, {at: [correction(5, m) for m in given]}, at)
    if gone == 0:  # the one before is reached through the one after it
        take_back(taken, 5, 1)
        take_back(taken, 5, 1)
        assert taken.apply(correction(5, OTHER)).applied
    else:
        take_back(taken, 5, *given[gone])
    for number in range(at + 1, 18):
        step(never, number)
        step(taken, number)
    assert equal(never, taken)


def test_a_replay_under_way_and_snapshots_in_between_change_nothing(small_network: XMem) -> None:
    never, taken = (start(small_network, CONFIG, CALIBRATION) for _ in range(2))
    run(never, {}, 32)
    run(taken, {15: [correction(5, FIRST)]}, 17)
    assert taken.frames_behind > 0
    taken.snapshot()
    take_back(taken, 5)
    taken.snapshot()
    for number in range(18, 33):
        step(taken, number)
    for number in range(33, 36):
        step(never, number)
        step(taken, number)
    assert taken.frames_behind == 0
    assert equal(never, taken)


def test_what_it_answered_is_open_again(small_network: XMem) -> None:
    asking = replace(CONFIG, operator_corrections=True, operator_entropy=0.0, cooldown_frames=3)
    asking = replace(asking, operator_iou=0.0, operator_rate=math.inf, request_timeout=SECOND)
    never, taken = (start(small_network, asking) for _ in range(2))
    asked = run(never, {}, 6)
    run(taken, {}, 6)
    [request] = [r for result in asked.values() for r in result.requests if r.object_id == 1]
    assert taken.request(request.stamp, 1) is not None
    assert taken.apply(correction(request.index, FIRST)).applied
    assert taken.request(request.stamp, 1) is None
    take_back(taken, request.index)
    again = taken.request(request.stamp, 1)
    assert again is not None
    assert taken.is_open(again)
    assert sorted(taken.open_requests) == sorted(never.open_requests)
    assert taken.apply(correction(request.index, FIRST)).applied, "it is no duplicate"


def test_a_self_correction_gets_back_what_a_person_had_taken(small_network: XMem) -> None:
    config = replace(CONFIG, update_from_pseudo=True)
    never, taken = (start(small_network, config, CALIBRATION) for _ in range(2))
    own = correction(5, SECOND_ONE, Source.PSEUDO)
    run(never, {5: [own]}, 9)
    run(taken, {5: [correction(5, OTHER), own]}, 9)
    take_back(taken, 5)
    for number in range(10, 18):
        step(never, number)
        step(taken, number)
    assert equal(never, taken)


def test_without_learning_from_persons_too(small_network: XMem) -> None:
    config = replace(CONFIG, update_from_operator=False)
    never, taken = (start(small_network, config, CALIBRATION) for _ in range(2))
    run(never, {}, 9)
    run(taken, {5: [correction(5, FIRST)]}, 9)
    take_back(taken, 5)
    for number in range(10, 18):
        step(never, number)
        step(taken, number)
    assert equal(never, taken)


def test_what_cannot_be_taken_back_is_refused_and_nothing_changes(small_network: XMem) -> None:
    short = replace(CONFIG, correction_horizon=SECOND)
    lazy, plain = start(small_network, short), start(small_network, short)
    answers = {5: [correction(5, FIRST)]}
    run(plain, answers, 30)
    run(lazy, answers, 30)
    for stamp, object_id, why in (
        (5, 1, "not kept any more"),
        (6, 1, "no correction of object 1"),
        (5, 2, "no correction of object 2"),
        (5, 7, "no correction of object 7"),
    ):
        outcome = lazy.retract(stamp * FRAME_TIME, object_id)
        assert not outcome.applied
        assert why in outcome.reason
    assert lazy.frames_behind == 0
    for number in range(31, 35):
        step(plain, number)
        step(lazy, number)
    assert same(plain, lazy)


def test_an_answer_is_kept_no_longer_than_its_frame(small_network: XMem) -> None:
    """It holds the image of what it has answered."""
    short = replace(CONFIG, correction_horizon=0, history_time=SECOND)
    asking = replace(short, operator_corrections=True, operator_entropy=0.0, cooldown_frames=0)
    lazy = start(small_network, asking)
    asked = {r.object_id: r for r in step(lazy, 1).requests}
    image = weakref.ref(asked[1].image)
    assert lazy.apply(correction(1, FIRST)).applied
    for object_id in asked.keys() - {1}:
        lazy.dismiss(object_id, Source.OPERATOR)
    asked.clear()
    lazy.config = short
    for index in range(2, 11):
        step(lazy, index)
    gc.collect()
    assert image() is not None
    step(lazy, 12)
    gc.collect()
    assert image() is None


def test_an_object_that_was_corrected_with_it_is_gone_by_then(small_network: XMem) -> None:
    lazy = start(small_network)
    run(lazy, {5: [correction(5, FIRST), correction(5, SECOND_ONE)]}, 9)
    lazy.remove_objects([2])
    take_back(lazy, 5)
    step(lazy, 10)
    assert lazy.object_ids == (1,)


def test_a_pause_that_began_or_ended_since_holds(small_network: XMem) -> None:
    lazy = start(small_network)
    run(lazy, {5: [correction(5, FIRST)]}, 5)
    lazy.pause_objects([1])
    take_back(lazy, 5)
    assert lazy.paused_ids == {1}
    step(lazy, 6)
    assert lazy.apply(correction(6, FIRST)).applied
    lazy.resume_objects([1])
    take_back(lazy, 6)
    assert not lazy.paused_ids
