# SPDX-License-Identifier: Apache-2.0
"""What is decided of frames that are gone through again is what an instant answer leads to."""

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
    probabilities,
    run,
    same,
    start,
    step,
    two_answered_at_once,
)
from random_clip import mask

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.lazy import Source, TrackState
from lazyxmem_ros.xmem import XMem


@pytest.mark.parametrize(
    ("delay", "hold_iou", "show_iou"), [(1, 0.5, 0.0), (12, 0.0, 0.5), (25, 0.5, 0.0)]
)
def test_the_predicted_iou_is_then_what_it_would_be_too(
    delay: int, hold_iou: float, show_iou: float, small_network: XMem
) -> None:
    """What the objects have looked like is followed through the corrected past."""
    config = replace(CONFIG, hold_iou=hold_iou, show_iou=show_iou, lost_after=SECOND)
    late = start(small_network, config, CALIBRATION)
    answers = {5 + delay: [correction(5, FIRST)], 9 + delay: [correction(9, SECOND_ONE)]}
    run(late, answers, 9 + delay)
    results = catch_up(late, 10 + delay)
    last = max(results)
    held = [result.held for result in results.values()]
    assert any(held) == (hold_iou > 0)
    assert not all(held)
    instant = two_answered_at_once(small_network, config, CALIBRATION)
    plain = Instant(start(small_network, config, CALIBRATION), {})
    predicted, at_once, without = (
        [track.predicted_iou for track in tracks]
        for tracks in (results[last].tracks, instant[last].tracks, plain[last].tracks)
    )
    assert predicted == at_once != without
    assert None not in predicted
    states = [track.state for track in results[last].tracks]
    assert states == [track.state for track in instant[last].tracks]


def test_pauses_count_when_frames_are_gone_through_again(small_network: XMem) -> None:
    """An untrained network doubts every object, so that frames with one that is not paused are
    held. Those in which all rested enter memory, now and the second time.
    """
    config = replace(CONFIG, hold_entropy=0.0)
    tokens = []
    for answered in (5, 12):
        lazy = start(small_network, config)
        for index in range(1, 41):
            if index in (3, 20):
                lazy.pause_objects([1, 2])
            if index in (9, 30):
                lazy.resume_objects([1, 2])
            held = step(lazy, index).held
            assert held is not (3 <= index < 9 or 20 <= index < 30), f"frame {index}"
            if index == answered:
                assert lazy.apply(correction(5, FIRST)).applied
        assert lazy.frames_behind == 0
        tokens.append((lazy.tracker.memory_tokens, probabilities(lazy)))
    assert tokens[0][0] == tokens[1][0]
    assert torch.equal(tokens[0][1], tokens[1][1])


def test_lost_objects_have_no_say_when_frames_are_gone_through_again(
    small_network: XMem,
) -> None:
    """An untrained network doubts everything; at these limits an object is LOST for it in time."""
    config = replace(
        CONFIG,
        hold_entropy=1.3,
        hold_unseen=False,
        lost_area=1600,
        lost_after=SECOND // 2,
    )
    instant = Instant(start(small_network, config), {5: [answer(5, FIRST)]})
    late = start(small_network, config)
    results = run(late, {20: [correction(5, FIRST)]}, 20) | catch_up(late, 21)
    last = max(results)
    assert {result.held for result in results.values()} == {True, False}
    assert late.tracker.memory_tokens == instant[last].memory_tokens
    assert same(instant, late)
    assert results[last].tracks == instant[last].tracks
    assert TrackState.LOST in {track.state for track in results[last].tracks}


def test_who_was_found_by_a_self_correction_is_not_lost_the_second_time(
    small_network: XMem,
) -> None:
    """Also where that was not to be learnt."""
    config = replace(CONFIG, catch_up_budget=60.0, lost_area=1600, lost_after=SECOND // 2)
    config = replace(config, hold_unseen=False, found_frames=100)
    whole, found = {2: np.ones_like(FIRST[1])}, {}
    for delay in (0, 3):
        lazy = start(small_network, config, CALIBRATION)
        answers = {
            18 + delay: [correction(18, FIRST)],
            19: [correction(19, whole, Source.PSEUDO)],
        }
        results = run(lazy, answers, 26)
        assert bool(results[22].caught_up) is bool(delay)
        found[delay] = [results[index].tracks[1].state for index in (18, 22, 24, 26)]
    assert found[0] == found[3]
    assert [state is TrackState.LOST for state in found[0][:2]] == [True, False]


def test_that_it_is_not_there_counts_although_something_is_found_until_it_takes_effect(
    small_network: XMem,
) -> None:
    """Something is found there before, and with the answer nothing."""
    config = replace(CONFIG, show_iou=0.92, state_period=2 * SECOND)
    absent = correction(10, {1: np.zeros_like(FIRST[1])})
    counted = {}
    for delay in (0, 3):
        lazy = start(small_network, config, CALIBRATION)
        run(lazy, {}, 10)
        counted[delay] = []
        for index in range(11, 36):
            if index == 11 + delay:
                assert lazy.apply(absent).applied
            result = step(lazy, index)
            looks_found = (result.tracks[0].predicted_iou or 0.0) > config.show_iou
            counted[delay].append((looks_found, lazy._state.objects[1].history.absences))
    instant, late = counted[0][3:], counted[3][3:]
    assert lazy.frames_behind == 0
    assert not any(found for found, _ in instant)
    assert late[0] == (True, 1)
    assert [count for _, count in instant] == [count for _, count in late] == [1] * len(late)


def test_that_it_is_not_there_counts_until_it_is_found_in_the_corrected_past(
    small_network: XMem,
) -> None:
    instant, late = (start(small_network, CONFIG, CALIBRATION) for _ in range(2))
    absent = correction(10, {1: np.zeros_like(FIRST[1])})
    run(instant, {10: [absent]}, 33)
    run(late, {20: [absent]}, 33)
    counts = [lazy._state.objects[1].history.absences for lazy in (instant, late)]
    assert late.frames_behind > 0
    assert counts == [0, 1]
    catch_up(late, 34)
    assert late._state.objects[1].history.absences == 0


def test_a_mask_that_is_given_ends_that_it_is_not_there_at_once(small_network: XMem) -> None:
    late = start(small_network)
    run(late, {20: [correction(10, {1: np.zeros_like(FIRST[1])})]}, 21)
    assert late.frames_behind > 0
    assert late._state.objects[1].history.absences == 1
    late.add_objects(FIRST)
    assert late._state.objects[1].history.absences == 0
    catch_up(late, 22)
    assert late._state.objects[1].history.absences == 0


def test_a_learnt_self_correction_is_no_persons_the_second_time(small_network: XMem) -> None:
    """What memory drops with a later answer begins where the object was last right."""
    config = replace(CONFIG, trusted_iou=0.7, update_from_pseudo=True, hold_iou=0.0, show_iou=0.0)
    doubting = replace(CALIBRATION, bias=-50.0)
    ends = []
    for delay in (0, 7):
        lazy = start(small_network, config, doubting)
        answers = {
            5 + delay: [correction(5, SECOND_ONE)],
            8: [correction(8, {1: mask(4, 4)}, Source.PSEUDO)],
            30: [correction(30, {1: mask(8, 8)})],
        }
        run(lazy, answers, 32)
        ends.append(lazy)
    assert same(*ends)


def test_a_frame_on_which_the_tracker_asked_to_correct_itself_stays_out(
    small_network: XMem,
) -> None:
    config = replace(CONFIG, pseudo_corrections=True, pseudo_entropy=0.0, pseudo_cooldown_frames=4)
    late = start(small_network, config)
    held = set()
    for index in range(1, 31):
        result = step(late, index)
        for request in result.requests:
            held.add(index)
            late.dismiss(request.object_id, request.source)
        if index == 24:
            assert late.apply(correction(14, FIRST)).applied
    assert late.catch_up(60.0) == 0
    memory = late.tracker.state().memory
    assert memory is not None
    again = {i for i in memory.working if 14 < i <= 30}
    assert again
    assert {i for i in held if 14 < i <= 30}
    assert not again & held


def test_what_is_said_next_follows_from_the_corrected_past(small_network: XMem) -> None:
    """The uncertainty's rate is to the frame before as it is now, not as it was published."""
    config = replace(CONFIG, catch_up_budget=60.0)
    instant, late = start(small_network, config), start(small_network, config)
    run(instant, {5: [correction(5, FIRST)]}, 20)
    run(late, {20: [correction(5, FIRST)]}, 20)
    expected, result = step(instant, 21), step(late, 21)
    assert result.caught_up == 16
    assert [t.uncertainty_rate for t in result.tracks] == [
        t.uncertainty_rate for t in expected.tracks
    ]
    assert result.tracks == expected.tracks
