# SPDX-License-Identifier: Apache-2.0
"""What memory learnt wrongly before a person's correction is dropped, the same late or not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from late_runs import (
    CALIBRATION,
    CONFIG,
    FIRST,
    SECOND_ONE,
    Instant,
    answer,
    catch_up,
    correction,
    run,
    same,
    start,
    step,
)
from random_clip import TINY, image, mask

from lazyxmem_ros.lazy import LazyTracker, Source
from lazyxmem_ros.lazy.policy import ObjectHistory, Observation, decide, doubted_since
from lazyxmem_ros.lazy.snapshot import read_snapshot, write_snapshot
from lazyxmem_ros.xmem import MemoryState, XMem, XMemTracker

DOUBTING = replace(CONFIG, trusted_iou=0.6)
SUSPICIOUS = replace(CONFIG, trusted_iou=1.0, hold_iou=0.0)
"""No prediction is ever trusted."""


def memory_of(lazy: LazyTracker) -> dict[str, torch.Tensor]:
    lazy.close()
    memory = lazy.tracker.state().memory
    assert memory is not None
    values = {f"values.{i}": v for i, v in memory.values.items()}
    return memory.shared | values | {"working": torch.tensor(memory.working)}


@pytest.mark.parametrize("delay", [1, 25])
def test_a_late_correction_drops_what_an_instant_one_would_have(
    delay: int, small_network: XMem
) -> None:
    late = start(small_network, SUSPICIOUS, CALIBRATION)
    answers = {15 + delay: [correction(15, FIRST)], 19 + delay: [correction(19, SECOND_ONE)]}
    run(late, answers, 19 + delay)
    catch_up(late, 20 + delay)
    acts = {15: [answer(15, FIRST)], 19: [answer(19, SECOND_ONE)]}
    suspicious, trusting = (
        Instant(start(small_network, config, CALIBRATION), acts)
        for config in (SUSPICIOUS, replace(SUSPICIOUS, trusted_iou=0.0))
    )
    assert not same(trusting, late)
    assert same(suspicious, late)
    mine, theirs = memory_of(late), memory_of(suspicious.lazy)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine | theirs)


def test_it_is_the_same_after_a_restart(small_network: XMem, tmp_path) -> None:
    lazy = start(small_network, DOUBTING, CALIBRATION)
    run(lazy, {15: [correction(15, FIRST)]}, 30)
    lazy.close()
    write_snapshot(lazy.snapshot(), tmp_path / "snapshot")
    other = LazyTracker(XMemTracker(small_network, TINY), DOUBTING, iou_predictor=CALIBRATION)
    other.resume(read_snapshot(tmp_path / "snapshot", other.tracker))
    told = lazy.tracker.state().memory.told
    assert told == {15: {1}}
    assert other.tracker.state().memory.told == told
    run_on = [step(each, 31) for each in (lazy, other)]
    assert same(lazy, other)
    assert run_on[0].tracks == run_on[1].tracks
    assert other.apply(correction(31, FIRST)).applied
    for index in range(32, 45):
        step(other, index)


def learning(network: XMem, frames: int) -> XMemTracker:
    """A tracker that has learnt every second frame."""
    tracker = XMemTracker(network, TINY)
    for index in range(frames):
        given = None if index else {1: mask(0, 0), 2: mask(20, 30)}
        tracker.memorize(tracker.segment(image(index), given))
    return tracker


def memory_after(tracker: XMemTracker, *, wrong: bool, since: int) -> MemoryState:
    """Its memory once a person has corrected the next frame: a little, or altogether."""
    frame = tracker.segment(image(41))
    predicted = frame.labels() == 1
    answer = ~predicted if wrong else predicted
    assert answer.any()
    tracker.correct(frame, {1: answer}, told={1}, doubted_since={1: since})
    memory = tracker.state().memory
    assert memory is not None
    return memory


def test_what_was_learnt_in_doubt_is_dropped_and_nothing_else(small_network: XMem) -> None:
    trusted, doubted = (
        memory_after(learning(small_network, 41), wrong=False, since=since) for since in (40, 35)
    )
    assert doubted.working == tuple(f for f in trusted.working if not 35 < f < 41)
    assert doubted.working != trusted.working
    assert doubted.told == {41: {1}}
    place = doubted.long_term
    for index in doubted.working:
        mine, theirs = (
            m.values[2][m.long_term :][m.shared["born"][m.long_term :] == index]
            for m in (doubted, trusted)
        )
        assert torch.equal(mine, theirs)
    kept = doubted.shared["born"][:place]
    assert not ((kept > 35) & (doubted.shared["shows"][:place] != 2)).any()


def test_an_answer_that_shows_something_else_drops_what_was_learnt_lately(
    small_network: XMem,
) -> None:
    """However sure the tracker was; long-term memory stays."""
    right, wrong = (
        memory_after(learning(small_network, 41), wrong=each, since=40) for each in (False, True)
    )
    assert len(right.working) > 2
    assert wrong.working == (0, 41)
    assert wrong.long_term == right.long_term


@pytest.mark.parametrize("doubted", [{}, {1: 3}])
def test_the_hidden_state_of_something_else_is_forgotten(
    doubted: dict[int, int], small_network: XMem
) -> None:
    tracker = XMemTracker(small_network, TINY)
    for index in range(9):
        tracker.memorize(tracker.segment(image(index), None if index else {1: mask(0, 0)}))
    state = tracker.state()
    forks = [
        tracker.fork(replace(state, hidden={1: state.hidden[1] + offset})) for offset in (0, 1)
    ]
    frames = [fork.segment(image(9)) for fork in forks]
    answer = ~np.logical_or.reduce([frame.labels() == 1 for frame in frames])
    for fork, frame in zip(forks, frames, strict=True):
        fork.correct(frame, {1: answer}, told={1}, doubted_since=doubted)
    one, other = (fork.state().hidden[1] for fork in forks)
    assert torch.equal(one, other) == bool(doubted)


def seen(index: int, predicted: float | None, *, given: bool = False) -> Observation:
    return Observation(index, index, 100, 0.1, given, predicted)


def test_an_object_is_doubted_since_its_predicted_iou_was_last_high() -> None:
    history = ObjectHistory()
    for index, predicted in enumerate([0.9, 0.65, 0.5, 0.55], start=1):
        _, history = decide(DOUBTING, history, seen(index, predicted), waiting=0)
    assert doubted_since(DOUBTING, {1: history}, [1]) == {1: 2}
    assert doubted_since(DOUBTING, {1: history}, []) == {}
    assert doubted_since(replace(DOUBTING, trusted_iou=0.0), {1: history}, [1]) == {}
    answered = history.corrected(Source.OPERATOR, index=4, stamp=4, in_view=True)
    assert doubted_since(DOUBTING, {1: answered}, [1]) == {1: 4}
    guessed = history.corrected(Source.PSEUDO, index=4, stamp=4, in_view=True)
    assert doubted_since(DOUBTING, {1: guessed}, [1]) == {1: 2}
    _, given = decide(DOUBTING, history, seen(5, 0.1, given=True), waiting=0)
    assert doubted_since(DOUBTING, {1: given}, [1]) == {1: 5}
    _, unknown = decide(DOUBTING, history, seen(5, None), waiting=0)
    assert doubted_since(DOUBTING, {1: unknown}, [1]) == {1: 5}
