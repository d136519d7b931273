# SPDX-License-Identifier: Apache-2.0
"""What memory learns while an object is paused, and what it does with that afterwards."""

from dataclasses import replace

import pytest
from late_runs import (
    CALIBRATION,
    CONFIG,
    FIRST,
    NOTHING,
    SECOND_ONE,
    Instant,
    answer,
    catch_up,
    correction,
    same,
    start,
    step,
)

from lazyxmem_ros.lazy import LazyTracker
from lazyxmem_ros.xmem import XMem

TRUSTING = replace(CONFIG, trusted_iou=0.7, hold_iou=0.0, show_iou=0.0, hold_unseen=False)
SURE = replace(CALIBRATION, weight=NOTHING, bias=20.0)
"""It expects the best of every mask."""
DOUBTING = replace(SURE, bias=-20.0)
"""It expects the worst."""


def learnt(lazy: LazyTracker) -> tuple[tuple[int, ...], int]:
    """Frames of working memory, and tokens of long-term memory."""
    memory = lazy.tracker.state().memory
    assert memory is not None
    return memory.working, memory.long_term


@pytest.mark.parametrize("resumed", [False, True])
def test_what_was_learnt_in_a_pause_stays_where_the_object_was_right(
    resumed: bool, small_network: XMem
) -> None:
    never, paused = (start(small_network, TRUSTING, SURE) for _ in range(2))
    for index in range(1, 31):
        result = step(never, index)
        if index == 8:
            paused.pause_objects([1])
        step(paused, index)
    if resumed:
        paused.resume_objects([1])
    for lazy in (never, paused):
        assert lazy.apply(correction(30, {1: result.labels == 1})).applied
        lazy.close()
    assert learnt(paused) == learnt(never)


def test_a_resumed_object_that_is_in_doubt_since_is_known_to_have_been_right(
    small_network: XMem,
) -> None:
    lazy = start(small_network, TRUSTING, SURE)
    for index in range(1, 13):
        if index == 8:
            lazy.pause_objects([1])
        step(lazy, index)
    lazy.resume_objects([1])
    lazy._state.iou_predictor = DOUBTING
    run_on = [step(lazy, index) for index in range(13, 19)]
    assert lazy.apply(correction(18, {1: run_on[-1].labels == 1})).applied
    lazy.close()
    assert not {*range(13, 18)} & {*learnt(lazy)[0]}


@pytest.mark.parametrize("index", [10, 11])
@pytest.mark.parametrize("order", [("resume", "correct"), ("correct", "resume"), ("resume",)])
def test_a_pause_that_ends_on_a_corrected_frame_ends_so_the_second_time(
    order: tuple[str, ...], index: int, small_network: XMem
) -> None:
    do = {"resume": lambda lazy: lazy.resume_objects([1]), "correct": answer(index, FIRST)}
    acts = {
        5: [answer(5, SECOND_ONE)],
        8: [lambda lazy: lazy.pause_objects([1])],
        index: [do[name] for name in order],
    }
    late = start(small_network, TRUSTING, DOUBTING)
    for number in range(1, 14):
        step(late, number)
        for act in acts.get(number, ()) if number != 5 else ():
            act(late)
    assert late.apply(correction(5, SECOND_ONE)).applied
    catch_up(late, 14)
    instant = Instant(start(small_network, TRUSTING, DOUBTING), acts)
    assert same(instant, late)
    trusted = [x._state.objects[1].history.trusted_index for x in (instant.lazy, late)]
    assert trusted[0] == trusted[1]
