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
    SECOND_ONE,
    correction,
    probabilities,
    run,
    same,
    start,
    step,
)
from random_clip import TINY, image, mask

from lazyxmem_ros.lazy import SECOND, LazyConfig, LazyTracker, Source, TrackState
from lazyxmem_ros.lazy.replay import ATTEMPTS, FRAMES_AT_LEAST
from lazyxmem_ros.xmem import TrackerError, XMem, XMemTracker


@cache
def answered_at_once(network: XMem, index: int) -> LazyTracker:
    """After 65 frames, of which one was corrected instantly; not to be stepped on."""
    instant = start(network)
    run(instant, {index: [correction(index, FIRST)]}, 65)
    return instant


@pytest.mark.parametrize("delay", [1, 3, 12, 25])
@pytest.mark.parametrize("index", [5, 7])  # with a copy of memory of its own, and between two
def test_once_caught_up_it_is_as_if_the_answer_had_been_instant(
    delay: int, index: int, small_network: XMem
) -> None:
    late = start(small_network)
    results = run(late, {index + delay: [correction(index, FIRST)]}, 65)
    caught_up = [i for i, result in results.items() if result.caught_up]
    assert len(caught_up) == 1
    # Two past frames are gone through with every new one.
    assert index + delay < caught_up[0] <= index + 2 * delay + 15
    assert late.frames_behind == 0
    assert same(answered_at_once(small_network, index), late)


@cache
def predicted_at_once(
    network: XMem, config: LazyConfig, *, corrected: bool
) -> tuple[list[bool], list[float | None]]:
    """Which of 80 frames memory did not learn, and the predicted IoUs of the next."""
    lazy = start(network, config, CALIBRATION)
    answers = {5: [correction(5, FIRST)], 9: [correction(9, SECOND_ONE)]} if corrected else {}
    held = [result.held for result in run(lazy, answers, 80).values()]
    return held, [track.predicted_iou for track in step(lazy, 81).tracks]


@pytest.mark.parametrize("hold_iou", [0.0, 0.5])
@pytest.mark.parametrize("delay", [1, 12, 25])
def test_the_predicted_iou_is_then_what_it_would_be_too(
    delay: int, hold_iou: float, small_network: XMem
) -> None:
    """What the objects have looked like is followed through the corrected past."""
    config = replace(CONFIG, hold_iou=hold_iou)
    held, instant = predicted_at_once(small_network, config, corrected=True)
    _, plain = predicted_at_once(small_network, config, corrected=False)
    assert any(held) == (hold_iou > 0)
    assert not all(held)
    late = start(small_network, config, CALIBRATION)
    run(late, {5 + delay: [correction(5, FIRST)], 9 + delay: [correction(9, SECOND_ONE)]}, 80)
    assert late.frames_behind == 0
    predicted = [track.predicted_iou for track in step(late, 81).tracks]
    assert predicted == instant != plain
    assert None not in predicted


def test_until_it_shows_tracking_goes_on_as_before(small_network: XMem) -> None:
    plain, late = start(small_network), start(small_network)
    run(plain, {}, 21)
    results = run(late, {20: [correction(5, FIRST)]}, 21)
    assert not any(r.caught_up for r in results.values())
    assert results[21].catching_up > 0
    assert same(plain, late)


@pytest.mark.parametrize("delay", [12, 25, 45])
def test_it_shows_on_the_second_new_frame_whatever_the_delay(
    delay: int, small_network: XMem
) -> None:
    """Long before the frames since have been gone through."""
    plain, late = start(small_network), start(small_network)
    last = 5 + delay + 2
    run(plain, {}, last)
    results = run(late, {5 + delay: [correction(5, FIRST)]}, last)
    assert results[last].catching_up > 0
    assert not same(plain, late)
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


def test_an_object_that_came_meanwhile_is_on_the_short_way(small_network: XMem) -> None:
    instant, late = start(small_network), start(small_network)
    for lazy, answered in ((instant, 5), (late, 40)):
        for index in range(1, 101):
            step(lazy, index, masks={3: mask(30, 40)} if index == 12 else None)
            if index == answered:
                assert lazy.apply(correction(5, FIRST)).applied
            if index == 43 and lazy is late:
                assert lazy.frames_behind > 0
                assert lazy.object_ids == (1, 2, 3)
                memory = lazy.tracker.state().memory
                assert memory is not None
                assert {5, 12} <= set(memory.working)
    assert same(instant, late)


def test_an_object_that_comes_while_the_short_way_is_gone_is_on_it(
    small_network: XMem,
) -> None:
    instant, late = start(small_network), start(small_network)
    for lazy, answered in ((instant, 5), (late, 40)):
        for index in range(1, 101):
            step(lazy, index, masks={3: mask(30, 40)} if index == 40 else None)
            if index == answered:
                assert lazy.apply(correction(5, FIRST)).applied
            if index > 40:
                assert lazy.object_ids == (1, 2, 3)
    assert late.frames_behind == 0
    assert same(instant, late)


def test_an_object_added_on_the_closed_newest_frame_after_the_short_way(
    small_network: XMem,
) -> None:
    instant, late = start(small_network), start(small_network)
    for lazy, answered in ((instant, 5), (late, 40)):
        for index in range(1, 111):
            step(lazy, index)
            if index == answered:
                assert lazy.apply(correction(5, FIRST)).applied
            if index == 41:
                lazy.close()
            if index == 42:
                lazy.catch_up(0.0)  # it arrives on a frame that is closed
                lazy.add_objects({3: mask(30, 40)})
    assert late.frames_behind == 0
    assert late.object_ids == instant.object_ids == (1, 2, 3)
    assert same(instant, late)


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
    instant, late = start(small_network), start(small_network)
    run(instant, {5: [answers[0]], 9: [answers[1]]}, 90)
    first, second = (answers[i] for i in order)
    if together:  # the second while the first is still being caught up with
        run(late, {20: [first], 22: [second]}, 90)
    else:
        run(late, {14: [first], 40: [second]}, 90)
    assert late.frames_behind == 0
    assert same(instant, late)


def test_two_objects_of_one_frame_answered_apart(small_network: XMem) -> None:
    instant, late = start(small_network), start(small_network)
    run(instant, {5: [correction(5, FIRST | SECOND_ONE)]}, 60)
    run(late, {12: [correction(5, FIRST)], 20: [correction(5, SECOND_ONE)]}, 60)
    assert same(instant, late)


def test_objects_that_come_meanwhile_are_kept(small_network: XMem) -> None:
    instant, late = start(small_network), start(small_network)
    given = {"at8": {"masks": {3: mask(30, 40)}}}
    run(instant, {5: [correction(5, FIRST)]}, 60, **given)
    run(late, {12: [correction(5, FIRST)]}, 60, **given)
    assert late.object_ids == (1, 2, 3)
    assert same(instant, late)


@pytest.mark.parametrize("when", [8, 14, 17])
def test_objects_that_go_meanwhile_are_gone(when: int, small_network: XMem) -> None:
    instant, late = start(small_network), start(small_network)
    for lazy, answered in ((instant, 5), (late, 12)):
        for index in range(1, 61):
            step(lazy, index)
            if index == answered:
                assert lazy.apply(correction(5, FIRST)).applied
            if index == when:
                lazy.remove_objects([2])
    assert late.object_ids == (1,)
    torch.testing.assert_close(probabilities(instant), probabilities(late), rtol=0, atol=1e-3)


def test_a_correction_of_the_closed_newest_frame_during_a_catch_up(small_network: XMem) -> None:
    instant, late = start(small_network), start(small_network)
    run(instant, {5: [correction(5, FIRST)], 21: [correction(21, SECOND_ONE)]}, 80)
    for index in range(1, 81):
        step(late, index)
        if index == 20:
            assert late.apply(correction(5, FIRST)).applied
        if index == 21:
            late.close()
            assert late.apply(correction(21, SECOND_ONE)).applied
    assert same(instant, late)


def test_an_object_added_on_the_frame_whose_memory_was_copied(small_network: XMem) -> None:
    instant, late = start(small_network), start(small_network)
    for lazy, answered in ((instant, 5), (late, 12)):
        for index in range(1, 61):
            step(lazy, index)
            if index == 5:  # a copy was made of it
                lazy.add_objects({4: mask(30, 40)})
            if index == answered:
                assert lazy.apply(correction(5, FIRST)).applied
    assert late.object_ids == instant.object_ids == (1, 2, 4)
    assert same(instant, late)


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
    run(free, {}, 40)
    limit = free.history_bytes // 6
    bounded.config = replace(CONFIG, correction_bytes=limit)
    run(bounded, {}, 40)
    assert bounded._state.history.feature_bytes <= limit
    assert bounded._state.history.evicted > 0
    assert bounded.apply(correction(38, FIRST)).applied


def test_features_go_before_frames_and_are_computed_again(small_network: XMem) -> None:
    free, bounded = start(small_network), start(small_network)
    run(free, {}, 30)
    history = free._state.history
    features = [r.features.features for r in history.replayable(since=0) if r.state is None]
    limit = history.feature_bytes - sum(t.nbytes for each in features for t in each) // 2
    bounded.config = replace(CONFIG, correction_bytes=limit)
    run(bounded, {}, 30)
    assert bounded._state.history.feature_bytes <= limit
    assert bounded.frames_evicted == 0
    assert bounded.correction_reach == free.correction_reach == 30 * FRAME_TIME
    oldest = bounded._state.history.replayable(since=0)[1]
    assert (oldest.state, oldest.features.features) == (None, None)
    for lazy in (free, bounded):
        assert lazy.apply(correction(oldest.index, FIRST)).applied
        for index in range(31, 75):
            step(lazy, index)
        assert lazy.frames_behind == 0
    assert torch.equal(probabilities(free), probabilities(bounded))


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
    instant, late = start(small_network, config), start(small_network, config)
    held = []
    for index in range(1, 61):
        results = [step(lazy, index) for lazy in (instant, late)]
        held.append(results[1].held)
        for lazy, answered in ((instant, 5), (late, 30)):
            if index == answered:
                assert lazy.apply(correction(5, FIRST)).applied
    assert late.frames_behind == 0
    assert True in held
    assert False in held
    assert instant.tracker.memory_tokens == late.tracker.memory_tokens
    assert same(instant, late)
    final = [step(lazy, 61).tracks for lazy in (instant, late)]
    assert final[0] == final[1]
    assert TrackState.LOST in {track.state for track in final[0]}


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
    instant, late = start(small_network), start(small_network)
    answers = {index: correction(index, {1: mask(index % 30, 10)}) for index in range(5, 41, 5)}
    run(instant, {index: [answer] for index, answer in answers.items()}, 140)
    run(late, {index + 20: [answer] for index, answer in answers.items()}, 140)
    assert late.frames_behind == 0
    assert same(instant, late)


def test_without_idu_only_the_mask_is_refined(small_network: XMem) -> None:
    plain, late = (
        start(small_network),
        start(small_network, replace(CONFIG, update_from_operator=False)),
    )
    run(plain, {}, 40)
    results = run(late, {12: [correction(5, FIRST)]}, 40)
    assert not any(r.caught_up or r.catching_up for r in results.values())
    assert same(plain, late)


@pytest.mark.parametrize("change", [{"correction_horizon": 0}, {"correction_bytes": 1}])
def test_a_catch_up_ends_well_although_no_more_is_kept(change, small_network: XMem) -> None:
    instant, late = start(small_network), start(small_network)
    for index in range(1, 61):
        step(instant, index)
        step(late, index)
        if index == 5:
            assert instant.apply(correction(5, FIRST)).applied
        if index == 20:
            assert late.apply(correction(5, FIRST)).applied
        if index == 23:
            late.config = replace(CONFIG, **change)
    assert late.frames_behind == 0
    assert same(instant, late)


def test_reset_forgets_a_catch_up(small_network: XMem) -> None:
    late = start(small_network)
    run(late, {20: [correction(5, FIRST)]}, 21)
    behind = late.history_bytes
    late.catch_up(60.0)
    assert behind - late.history_bytes > late.tracker.nbytes  # a fork's memory was counted
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
            kept = [frame.image, *frame.features, frame.distribution]
            assert all(t.untyped_storage().data_ptr() % mmap.PAGESIZE == 0 for t in kept)
            assert kept[1].untyped_storage().data_ptr() == kept[0].untyped_storage().data_ptr()


def test_answers_without_end_take_effect_and_memory_stays_flat(small_network: XMem) -> None:
    """Each is 20 frames late, they come every 15 frames, and a frame goes by for every two that
    are gone through again: the catch-up would be sent back for ever.
    """
    late = start(small_network)
    took_effect, held = [], []
    for index in range(1, 301):
        if step(late, index).caught_up:
            took_effect.append(index)
        if index % 15 == 0 and index > 20:
            assert late.apply(correction(index - 20, {1: mask(index % 30, 10)})).applied
        replay = late._past.replay
        held.append(len(replay.records) if replay else 0)
    assert all(b - a <= 60 for a, b in pairwise([30, *took_effect, 300]))
    assert max(held[150:]) <= max(held[:150])
    horizon = CONFIG.correction_horizon // FRAME_TIME
    assert max(held) <= horizon + 2 * CONFIG.state_period // FRAME_TIME


def test_what_corrections_could_not_wait_for_is_gone_through_after_the_taking_over(
    small_network: XMem,
) -> None:
    instant, late = start(small_network), start(small_network)
    answers = {index: correction(index, {1: mask(index % 30, 10)}) for index in range(5, 121, 5)}
    run(instant, {index: [answer] for index, answer in answers.items()}, 240)
    results = run(late, {index + 20: [answer] for index, answer in answers.items()}, 240)
    assert sum(bool(result.caught_up) for result in results.values()) > 1
    assert late.frames_behind == 0
    assert same(instant, late)


@pytest.mark.parametrize("part", ["encode_value", "decode"])
@pytest.mark.parametrize("what", ["correction", "object"])
def test_a_frame_that_fails_is_gone_through_once_more(
    what: str, part: str, small_network: XMem, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, failing = start(small_network), start(small_network)
    for lazy in (plain, failing):
        run(lazy, {}, 12)
        if what == "correction":
            assert lazy.apply(correction(5, FIRST)).applied
        else:
            assert lazy.add_to_past({3: mask(30, 40)}, 5 * FRAME_TIME).applied
        lazy.close()
    with monkeypatch.context() as patch:
        patch.setattr(
            failing.tracker.network, part, Mock(side_effect=torch.OutOfMemoryError("full"))
        )
        with pytest.raises(torch.OutOfMemoryError):
            step(failing, 13)
    for index in range(13, 61):
        results = [step(lazy, index) for lazy in (plain, failing)]
    assert failing.frames_behind == 0
    assert results[0].tracks == results[1].tracks
    assert same(plain, failing)


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


def test_overlapping_masks_of_one_correction(small_network: XMem) -> None:
    instant, late = start(small_network), start(small_network)
    both = correction(5, {1: mask(10, 10), 2: mask(14, 14)})
    run(instant, {5: [both]}, 60)
    run(late, {12: [both]}, 60)
    assert same(instant, late)


def test_the_tracker_s_own_late_correction_takes_no_pixel_from_a_person_s(
    small_network: XMem,
) -> None:
    config = replace(CONFIG, update_from_pseudo=True)
    instant, late = start(small_network, config), start(small_network, config)
    told = correction(5, {1: mask(10, 10)})
    guessed = correction(5, {2: mask(14, 14)}, Source.PSEUDO)
    run(instant, {5: [told, guessed]}, 60)
    run(late, {10: [told], 12: [guessed]}, 60)
    assert same(instant, late)
    inside = correction(50, {1: mask(10, 10)})
    assert late.apply(inside).applied
    refused = late.apply(correction(50, {2: mask(10, 10)}, Source.PSEUDO))
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
