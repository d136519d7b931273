# SPDX-License-Identifier: Apache-2.0
"""Late corrections: exactly what an instant answer would have led to, once caught up."""

import mmap
from dataclasses import replace
from functools import cache
from itertools import pairwise
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from late_runs import (
    CALIBRATION,
    CONFIG,
    FIRST,
    FRAME_TIME,
    NEVER,
    SECOND_ONE,
    Instant,
    add,
    answer,
    answered_at_once,
    assert_close,
    catch_up,
    correction,
    newest,
    probabilities,
    remove,
    run,
    same,
    start,
    step,
)
from random_clip import TINY, image, mask

from lazyxmem_ros.lazy import (
    SECOND,
    IouPredictor,
    LazyConfig,
    LazyTracker,
    Source,
    TrackState,
)
from lazyxmem_ros.lazy.past import ATTEMPTS
from lazyxmem_ros.lazy.replay import FRAMES_AT_LEAST
from lazyxmem_ros.xmem import TrackerError, XMem, XMemTracker
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


@cache
def two_answered_at_once(
    network: XMem, config: LazyConfig = CONFIG, iou_predictor: IouPredictor | None = None
) -> Instant:
    answers = {5: [answer(5, FIRST)], 9: [answer(9, SECOND_ONE)]}
    return Instant(start(network, config, iou_predictor), answers)


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


def test_until_it_shows_tracking_goes_on_as_before(small_network: XMem) -> None:
    late = start(small_network)
    results = run(late, {20: [correction(5, FIRST)]}, 21)
    assert not any(r.caught_up for r in results.values())
    assert results[21].catching_up > 0
    assert same(answered_at_once(small_network, NEVER), late)


@pytest.mark.parametrize("delay", [12, 45])
def test_it_shows_on_the_second_new_frame_whatever_the_delay(
    delay: int, small_network: XMem
) -> None:
    """Long before the frames since have been gone through."""
    late = start(small_network)
    last = 5 + delay + 2
    results = run(late, {5 + delay: [correction(5, FIRST)]}, last)
    assert results[last].catching_up > 0
    assert not same(answered_at_once(small_network, NEVER), late)
    memory = late.tracker.state().memory
    assert memory is not None
    assert set(memory.told) == {5}


def test_on_the_short_way_no_more_frames_are_gone_through_than_otherwise(
    small_network: XMem, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = start(small_network)
    run(late, {40: [correction(5, FIRST)]}, 40)
    seen = []
    resegment = XMemTracker.resegment

    def counted(self: XMemTracker, past):
        seen[-1] += 1
        return resegment(self, past)

    monkeypatch.setattr(XMemTracker, "resegment", counted)
    for index in range(41, 50):
        seen.append(0)
        step(late, index)
    assert max(seen) <= FRAMES_AT_LEAST


def test_the_short_way_makes_no_copies_of_memory(
    small_network: XMem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every frame has one, so that its stations have, too."""
    late = start(small_network, replace(CONFIG, state_period=0))
    run(late, {40: [correction(5, FIRST)]}, 40)
    late.close()
    copied = Mock(side_effect=AssertionError("a copy"))
    monkeypatch.setattr(XMemTracker, "state", copied)
    for _ in range(2):
        assert late.catch_up(0.0) > 0
    memory = late.tracker._now.memory
    assert memory is not None
    assert memory.told_frames == {5: {1}}


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


def test_an_object_that_came_meanwhile_is_on_the_short_way(small_network: XMem) -> None:
    third = {12: {3: mask(30, 40)}}
    late = start(small_network)
    run(late, {25: [correction(5, FIRST)]}, 28, at12={"masks": third[12]})
    assert late.frames_behind > 0
    assert late.object_ids == (1, 2, 3)
    memory = late.tracker.state().memory
    assert memory is not None
    assert {5, 12} <= set(memory.working)
    catch_up(late, 29)
    assert same(Instant(start(small_network), {5: [answer(5, FIRST)]}, third), late)


def test_an_object_that_comes_while_the_short_way_is_gone_is_on_it(
    small_network: XMem,
) -> None:
    third = {25: {3: mask(30, 40)}}
    late = start(small_network)
    run(late, {25: [correction(5, FIRST)]}, 25, at25={"masks": third[25]})
    results = catch_up(late, 26)
    assert all([t.object_id for t in r.tracks] == [1, 2, 3] for r in results.values())
    assert same(Instant(start(small_network), {5: [answer(5, FIRST)]}, third), late)


def test_an_object_added_on_the_closed_newest_frame_after_the_short_way(
    small_network: XMem,
) -> None:
    late, third = start(small_network), {3: mask(30, 40)}
    run(late, {25: [correction(5, FIRST)]}, 26)
    late.close()
    step(late, 27)
    late.catch_up(0.0)  # it arrives on a frame that is closed
    assert late.frames_behind > 0
    late.add_objects(third)
    catch_up(late, 28)
    assert late.object_ids == (1, 2, 3)
    acts = {5: [answer(5, FIRST)], 27: [add(third)]}
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
    assert_close(instant, late)


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


def test_beyond_the_horizon_it_says_so(small_network: XMem) -> None:
    config = replace(CONFIG, correction_horizon=SECOND, history_time=SECOND)
    late = start(small_network, config)
    run(late, {}, 40)
    outcome = late.apply(correction(5, FIRST))
    assert not outcome.applied
    assert "forgotten" in outcome.reason


def test_the_kept_past_is_bounded_in_bytes(small_network: XMem) -> None:
    free, bounded = start(small_network), start(small_network)
    run(free, {}, 20)
    limit = free.history_bytes // 6
    bounded.config = replace(CONFIG, correction_bytes=limit)
    run(bounded, {}, 20)
    assert bounded._state.history.feature_bytes <= limit
    assert bounded._state.history.evicted > 0
    assert bounded.apply(correction(18, FIRST)).applied


def test_features_go_before_frames_and_are_computed_again(small_network: XMem) -> None:
    free, bounded = start(small_network), start(small_network)
    run(free, {}, 15)
    history = free._state.history
    features = [r.features.features for r in history.replayable(since=0) if r.state is None]
    limit = history.feature_bytes - sum(t.nbytes for each in features for t in each) // 2
    bounded.config = replace(CONFIG, correction_bytes=limit)
    run(bounded, {}, 15)
    assert bounded._state.history.feature_bytes <= limit
    assert bounded.frames_evicted == 0
    assert bounded.correction_reach == free.correction_reach == 15 * FRAME_TIME
    oldest = bounded._state.history.replayable(since=0)[1]
    assert (oldest.state, oldest.features.features) == (None, None)
    assert not oldest.frame.predicted
    for lazy in (free, bounded):
        assert lazy.apply(correction(oldest.index, FIRST)).applied
        catch_up(lazy, 16)
    assert newest(free) == newest(bounded)
    assert same(free, bounded)


def test_the_newest_frame_keeps_its_prediction_where_bytes_are_short(small_network: XMem) -> None:
    late = start(small_network)
    run(late, {}, 15)
    late.close()
    late.config = replace(CONFIG, correction_bytes=late._state.history.feature_bytes * 3 // 4)
    late.add_to_past({3: mask(30, 40)}, 15 * FRAME_TIME)
    late.snapshot()  # goes through the frame, on which the object is known
    assert late.apply(correction(15, FIRST)).applied
    assert late.catch_up(60.0) == 0
    result = late.add_objects({4: mask(5, 5)})
    assert [track.object_id for track in result.tracks] == [1, 2, 3, 4]


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


@pytest.mark.parametrize("change", [{"correction_horizon": 0}, {"correction_bytes": 1}])
def test_a_catch_up_ends_well_although_no_more_is_kept(change, small_network: XMem) -> None:
    late = start(small_network)
    run(late, {15: [correction(5, FIRST)]}, 18)
    assert late.frames_behind > 0
    late.config = replace(CONFIG, **change)
    catch_up(late, 19)
    assert same(answered_at_once(small_network, 5), late)


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


def test_the_kept_past_lies_apart_from_what_comes_and_goes(small_network: XMem) -> None:
    """On pages of its own, also where it was gone through again: no array of a frame's
    computation is kept, which would leave a hole when it goes.
    """
    pictures = np.random.default_rng(0).integers(0, 256, (24, 144, 160, 3), dtype=np.uint8)
    shown = np.zeros((144, 160), bool)
    shown[40:90, 30:100] = True
    lazy = LazyTracker(XMemTracker(small_network, TINY), CONFIG)
    for index, picture in enumerate(pictures):
        lazy.step(picture, index * FRAME_TIME, masks={1: shown} if index == 0 else None)
        if index == 8:
            outcome = lazy.apply(correction(5, {1: np.roll(shown, 20, 1)}))
            assert outcome.applied
    assert lazy.frames_behind == 0
    records = lazy._state.history.replayable()
    assert len(records) == len(pictures)
    for record in records[:-1]:  # the newest frame is open
        frames = [record.frame]
        if record.state is not None:
            assert record.state.frame is not None
            frames.append(record.state.frame)
        for frame in frames:
            assert frame.features is not None
            kept = [frame.pixels, *frame.features, frame.distribution]
            assert all(t.untyped_storage().data_ptr() % mmap.PAGESIZE == 0 for t in kept)
            assert kept[1].untyped_storage().data_ptr() == kept[2].untyped_storage().data_ptr()


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


@pytest.mark.parametrize("part", ["fork", "skip"])
def test_a_short_way_that_fails_is_left_to_the_replay(
    part: str, small_network: XMem, monkeypatch: pytest.MonkeyPatch
) -> None:
    instant = Instant(start(small_network), {5: [answer(5, FIRST)], 30: [answer(30, SECOND_ONE)]})
    late = start(small_network)
    run(late, {40: [correction(5, FIRST)], 44: [correction(30, SECOND_ONE)]}, 44)
    late.close()
    with monkeypatch.context() as patch:
        patch.setattr(XMemTracker, part, Mock(side_effect=torch.OutOfMemoryError("full")))
        step(late, 45)
    catch_up(late, 46)
    assert same(instant, late)


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


@pytest.mark.parametrize("door", ["step", "add", "add to the past", "correct", "correct late"])
def test_an_array_that_is_used_again_changes_nothing(door: str, small_network: XMem) -> None:
    """Also not when the frames since are gone through again."""
    ends = []
    for used_again in (False, True):
        shown, late = {3: mask(30, 40)}, start(small_network)
        known = {1: shown[3]}
        run(late, {}, 7)
        if door == "step":
            step(late, 8, masks=shown)
        else:
            step(late, 8)
        if door == "add":
            late.add_objects(shown)
        elif door == "add to the past":
            late.add_to_past(shown, 7 * FRAME_TIME)
        elif door == "correct":
            assert late.apply(correction(8, known)).applied
        elif door == "correct late":
            assert late.apply(correction(7, known)).applied
        shown[3][:] ^= used_again
        step(late, 9)
        assert late.apply(correction(5, SECOND_ONE)).applied
        last = max(catch_up(late, 10))
        ends.append((last, probabilities(late)))
    assert ends[0][0] == ends[1][0]
    assert torch.equal(ends[0][1], ends[1][1])


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


def test_a_horizon_of_nothing_keeps_nothing(small_network: XMem) -> None:
    late = start(small_network)
    run(late, {}, 10)
    late.config = replace(CONFIG, correction_horizon=0)
    assert not late.keeps(10 * FRAME_TIME)
    step(late, 11)
    assert not late.keeps(11 * FRAME_TIME)


def test_with_another_size_the_past_is_forgotten(small_network: XMem) -> None:
    late = start(small_network)
    run(late, {20: [correction(5, FIRST)]}, 21)
    late.remove_objects([1, 2])
    size = (80, 96)
    late.step(image(22, size), 22 * FRAME_TIME, masks={3: mask(0, 0, size)})
    assert late.frames_behind == 0
    assert not late.keeps(10 * FRAME_TIME)
    for index in range(23, 40):
        result = late.step(image(index, size), index * FRAME_TIME)
    assert result.labels.shape == size
    assert late.apply(correction(30, {3: mask(4, 4, size)})).applied


def test_a_frame_loses_its_features_first_and_is_forgotten_later(small_network: XMem) -> None:
    config = replace(CONFIG, correction_horizon=SECOND, history_time=2 * SECOND)
    lazy = start(small_network, config)
    run(lazy, {}, 40)
    history = lazy._state.history
    assert [r.index for r in history.replayable()] == list(range(30, 41))
    assert history.oldest is not None
    assert history.oldest.index == 20
    assert history.find(29 * FRAME_TIME).features is None
    assert history.find(29 * FRAME_TIME).mask(1).shape == image(0).shape[:2]
    assert lazy.keeps(35 * FRAME_TIME)
    assert not lazy.keeps(29 * FRAME_TIME)
    outcome = lazy.apply(correction(19, FIRST))
    assert "forgotten" in outcome.reason


def test_features_may_outlast_the_time_of_masks_but_not_the_number_of_frames(
    small_network: XMem,
) -> None:
    config = replace(CONFIG, correction_horizon=2 * SECOND, history_time=SECOND)
    lazy = start(small_network, config)
    run(lazy, {}, 40)
    assert lazy._state.history.oldest.index == 20
    lazy.config = replace(config, history_frames=5)
    assert [r.index for r in lazy._state.history.replayable()] == [36, 37, 38, 39, 40]
    assert len(lazy._state.history) == 5
    lazy.config = replace(config, correction_horizon=0)
    assert lazy._state.history.feature_bytes == 0
    assert step(lazy, 41).tracks
