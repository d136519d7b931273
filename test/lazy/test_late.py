# SPDX-License-Identifier: Apache-2.0
"""Late corrections: exactly what an instant answer would have led to, once caught up."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from late_runs import (
    CONFIG,
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
    newest,
    remove,
    run,
    same,
    start,
    step,
    two_answered_at_once,
)
from random_clip import image, mask

from lazyxmem_ros.lazy import (
    Source,
)
from lazyxmem_ros.xmem import XMem
from lazyxmem_ros.xmem import tracker as tracker_module
from lazyxmem_ros.xmem.gating import Place


@pytest.mark.parametrize(
    ("delay", "index"),
    [(1, 5), (3, 7), (12, 7), (25, 5)],  # 5 has a copy of memory of its own, 7 lies between two
)
def test_once_caught_up_it_is_as_if_the_answer_had_been_instant(
    delay: int, index: int, small_network: XMem
) -> None:
    late = start(small_network)
    run(late, {index + delay: [correction(index, FIRST)]}, index + delay)
    results = catch_up(late, index + delay + 1)
    caught_up = [i for i, result in results.items() if result.caught_up]
    assert len(caught_up) == 1
    # Two past frames are gone through with every new one.
    assert index + delay < caught_up[0] <= index + 2 * delay + 15
    assert same(answered_at_once(small_network, index), late)


def test_what_is_said_of_the_last_frame_of_a_replay_is_learnt(small_network: XMem) -> None:
    """There is no shorter way to it."""
    late = start(small_network)
    run(late, {20: [correction(12, FIRST)]}, 20)
    while late.catch_up(0.0) > 1:
        pass
    assert late.frames_behind == 1
    assert late.apply(correction(20, SECOND_ONE)).applied
    assert late.catch_up(0.0) == 0
    step(late, 21)
    acts = {12: [answer(12, FIRST)], 20: [answer(20, SECOND_ONE)]}
    assert same(Instant(start(small_network), acts), late)


def test_a_larger_budget_catches_up_at_once(small_network: XMem) -> None:
    late = start(small_network, replace(CONFIG, catch_up_budget=60.0))
    results = run(late, {20: [correction(5, FIRST)]}, 21)
    assert results[21].caught_up == 16
    assert results[21].catching_up == 0


def test_the_outcome_shows_the_corrected_frame_itself(small_network: XMem) -> None:
    late = start(small_network)
    run(late, {}, 15)
    outcome = late.apply(correction(5, FIRST))
    assert outcome.applied
    assert outcome.stamp == outcome.applied_stamp == 5 * FRAME_TIME
    assert outcome.labels is not None
    assert np.array_equal(outcome.labels == 1, FIRST[1])
    assert "10 frames late" in outcome.reason


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("together", [True, False])
def test_several_corrections_in_any_order(
    order: tuple[int, int], together: bool, small_network: XMem
) -> None:
    answers = [correction(5, FIRST), correction(9, SECOND_ONE)]
    late = start(small_network)
    first, second = (answers[i] for i in order)
    run(late, {14: [first]}, 16 if together else 30)
    assert (late.frames_behind > 0) is together
    assert late.apply(second).applied
    catch_up(late, newest(late) + 1)
    assert same(two_answered_at_once(small_network), late)


def test_two_objects_of_one_frame_answered_apart(small_network: XMem) -> None:
    instant = Instant(start(small_network), {5: [answer(5, FIRST | SECOND_ONE)]})
    late = start(small_network)
    run(late, {12: [correction(5, FIRST)], 16: [correction(5, SECOND_ONE)]}, 16)
    catch_up(late, 17)
    assert same(instant, late)


def test_objects_that_come_meanwhile_are_kept(small_network: XMem) -> None:
    third = {8: {3: mask(30, 40)}}
    late = start(small_network)
    run(late, {12: [correction(5, FIRST)]}, 12, at8={"masks": third[8]})
    catch_up(late, 13)
    assert late.object_ids == (1, 2, 3)
    assert same(Instant(start(small_network), {5: [answer(5, FIRST)]}, third), late)


@pytest.mark.parametrize("when", [8, 14, 17])
def test_objects_that_go_meanwhile_are_gone(when: int, small_network: XMem) -> None:
    instant = Instant(start(small_network), {5: [answer(5, FIRST)], when: [remove(2)]})
    late = start(small_network)
    for index in range(1, 18):
        step(late, index)
        if index == 12:
            assert late.apply(correction(5, FIRST)).applied
        if index == when:
            late.remove_objects([2])
    catch_up(late, 18)
    assert late.object_ids == (1,)
    assert same(instant, late)


def test_a_correction_of_the_closed_newest_frame_during_a_catch_up(small_network: XMem) -> None:
    acts = {5: [answer(5, FIRST)], 15: [answer(15, SECOND_ONE)]}
    late = start(small_network)
    run(late, {14: [correction(5, FIRST)]}, 15)
    late.close()
    assert late.frames_behind > 0
    assert late.apply(correction(15, SECOND_ONE)).applied
    catch_up(late, 16)
    assert same(Instant(start(small_network), acts), late)


@pytest.mark.parametrize("delay", [0, 7])
def test_it_is_exact_where_gates_cut_something_off(
    delay: int, small_network: XMem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the frame is the newest, but closed."""

    def cut_off(
        distribution: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, dict[int, Place]]:
        """All of the second object."""
        share = torch.ones(len(distribution), 1, 1)
        share[2] = 0
        return distribution * share, {}

    monkeypatch.setattr(tracker_module, "gate", cut_off)
    late = start(small_network)
    run(late, {}, 5 + delay)
    late.close()
    assert late.apply(correction(5, FIRST)).applied
    catch_up(late, 6 + delay)
    assert same(Instant(start(small_network), {5: [answer(5, FIRST)]}), late)


def test_an_object_added_on_the_frame_whose_memory_was_copied(small_network: XMem) -> None:
    fourth = {4: mask(30, 40)}
    late = start(small_network)
    run(late, {}, 5)
    late.add_objects(fourth)  # a copy was made of this frame
    for index in range(6, 13):
        step(late, index)
    assert late.apply(correction(5, FIRST)).applied
    catch_up(late, 13)
    assert late.object_ids == (1, 2, 4)
    acts = {5: [add(fourth), answer(5, FIRST)]}
    assert same(Instant(start(small_network), acts), late)


def test_duplicates_and_removed_objects_are_refused(small_network: XMem) -> None:
    late = start(small_network)
    run(late, {}, 12)
    assert late.apply(correction(5, FIRST)).applied
    again = late.apply(correction(5, FIRST))
    assert not again.applied
    assert "duplicate" in again.reason
    late.remove_objects([1])
    gone = late.apply(correction(6, {1: mask(3, 3)}))
    assert not gone.applied
    assert "removed" in gone.reason


def test_what_was_added_and_corrected_on_one_frame_is_so_the_second_time(
    small_network: XMem,
) -> None:
    """What memory drops of it is told from before it was added."""
    third, better = {3: mask(2, 44)}, {3: mask(28, 40)}
    acts = [add(third), answer(10, better)]
    late, instant = (start(small_network, replace(CONFIG, trusted_iou=0.7)) for _ in range(2))
    for index in range(1, 13):
        step(late, index)
        for act in acts if index == 10 else []:
            act(late)
    assert late.apply(correction(5, FIRST)).applied
    catch_up(late, 13)
    assert same(Instant(instant, {5: [answer(5, FIRST)], 10: acts}), late)


def test_answers_in_a_row_do_not_keep_it_from_catching_up(small_network: XMem) -> None:
    """Each is two seconds late, and they come faster than one alone is caught up with."""
    answers = {index: {1: mask(index % 30, 10)} for index in range(5, 31, 5)}
    acts = {index: [answer(index, masks)] for index, masks in answers.items()}
    late = start(small_network)
    run(late, {i + 20: [correction(i, masks)] for i, masks in answers.items()}, 50)
    catch_up(late, 51)
    assert same(Instant(start(small_network), acts), late)


def test_without_idu_only_the_mask_is_refined(small_network: XMem) -> None:
    late = start(small_network, replace(CONFIG, update_from_operator=False))
    results = run(late, {12: [correction(5, FIRST)]}, 25)
    assert not any(r.caught_up or r.catching_up for r in results.values())
    assert same(answered_at_once(small_network, NEVER), late)


def test_reset_forgets_a_catch_up(small_network: XMem) -> None:
    late = start(small_network)
    run(late, {20: [correction(5, FIRST)]}, 21)
    ways = late.history_bytes - late._state.history.nbytes
    assert ways >= late.tracker.nbytes  # a fork's memory is counted
    late.catch_up(60.0)
    assert late.history_bytes == late._state.history.nbytes
    assert late.apply(correction(7, FIRST)).applied
    late.reset()
    assert late.frames_behind == 0
    assert late.history_bytes == 0
    late.step(image(0), 0, masks={1: mask(0, 0)})


def test_answers_without_end_take_effect_and_memory_stays_flat(small_network: XMem) -> None:
    """Each is 20 frames late, they come every 15 frames, and a frame goes by for every two that
    are gone through again: the catch-up would be sent back for ever.
    """
    late = start(small_network)
    took_effect, held = [], []
    for index in range(1, 201):
        if step(late, index).caught_up:
            took_effect.append(index)
        if index % 15 == 0 and index > 20:
            assert late.apply(correction(index - 20, {1: mask(index % 30, 10)})).applied
        replay = late._past.replay
        held.append(len(replay.records) if replay else 0)
    assert all(b - a <= 60 for a, b in pairwise([30, *took_effect, 200]))
    assert max(held[100:]) <= max(held[:100])
    horizon = CONFIG.correction_horizon // FRAME_TIME
    assert max(held) <= horizon + 2 * CONFIG.state_period // FRAME_TIME


def test_overlapping_masks_of_one_correction(small_network: XMem) -> None:
    both = {1: mask(10, 10), 2: mask(14, 14)}
    late = start(small_network)
    run(late, {12: [correction(5, both)]}, 12)
    catch_up(late, 13)
    assert same(Instant(start(small_network), {5: [answer(5, both)]}), late)


def test_the_tracker_s_own_late_correction_takes_no_pixel_from_a_person_s(
    small_network: XMem,
) -> None:
    config = replace(CONFIG, update_from_pseudo=True)
    told, guessed = {1: mask(10, 10)}, {2: mask(14, 14)}
    acts = [answer(5, told), answer(5, guessed, Source.PSEUDO)]
    late = start(small_network, config)
    run(late, {10: [correction(5, told)], 12: [correction(5, guessed, Source.PSEUDO)]}, 12)
    last = max(catch_up(late, 13))
    assert same(Instant(start(small_network, config), {5: acts}), late)
    inside = correction(last - 5, {1: mask(10, 10)})
    assert late.apply(inside).applied
    refused = late.apply(correction(last - 5, {2: mask(10, 10)}, Source.PSEUDO))
    assert not refused.applied
    assert "an operator gave to other objects" in refused.reason
