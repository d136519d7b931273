# SPDX-License-Identifier: Apache-2.0
"""Objects shown on past frames: once caught up, exactly what showing them at once leads to."""

from dataclasses import replace
from functools import cache
from pathlib import Path

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
    Act,
    Instant,
    add,
    answer,
    answered_at_once,
    catch_up,
    correction,
    remove,
    same,
    start,
    step,
)
from random_clip import TINY, mask

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.lazy import (
    IouPredictor,
    LazyTracker,
    StampError,
    TrackState,
    read_snapshot,
    write_snapshot,
)
from lazyxmem_ros.xmem import MaskError, XMem, XMemTracker

THIRD = {3: mask(30, 40)}
FOURTH = {4: mask(4, 30)}


def show(lazy: LazyTracker, index: int, masks, **kwargs):
    return lazy.add_to_past(masks, index * FRAME_TIME, **kwargs)


def run(lazy: LazyTracker, first: int, last: int):
    return {index: step(lazy, index) for index in range(first, last + 1)}


@cache
def added_at_once(network: XMem, index: int, iou_predictor: IouPredictor | None = None) -> Instant:
    """THIRD is shown on frame `index` at once."""
    return Instant(start(network, iou_predictor=iou_predictor), {index: [add(THIRD)]})


@pytest.mark.parametrize(
    ("delay", "index"),
    [(1, 7), (3, 5), (12, 5), (25, 7)],  # 5 has a copy of memory of its own, 7 lies between two
)
def test_once_caught_up_it_is_as_if_the_object_had_been_shown_at_once(
    delay: int, index: int, small_network: XMem
) -> None:
    late = start(small_network, CONFIG, CALIBRATION)
    run(late, 1, index + delay)
    outcome = show(late, index, THIRD)
    assert outcome.applied
    assert outcome.applied_stamp == index * FRAME_TIME
    assert f"shown {delay} frames late" in outcome.reason
    results = catch_up(late, index + delay + 1)
    caught_up = [i for i, result in results.items() if result.caught_up]
    assert len(caught_up) == 1
    assert caught_up[0] <= index + 2 * delay + 15
    for i, result in results.items():
        ids = [track.object_id for track in result.tracks]
        assert ids == ([1, 2, 3] if i >= caught_up[0] else [1, 2])
    instant = added_at_once(small_network, index, CALIBRATION)
    assert same(instant, late)
    last = max(results)
    assert late.tracker.memory_tokens == instant[last].memory_tokens
    # What is said from now on is the same as well: states, uncertainty, its rate, predicted IoU.
    assert results[last].tracks == instant[last].tracks


def test_until_then_the_others_are_tracked_on_and_it_is_known_as_arriving(
    small_network: XMem,
) -> None:
    late = start(small_network)
    run(late, 1, 15)
    show(late, 5, THIRD, labels={3: "cup"})
    assert late.arriving_ids == (3,)
    result = step(late, 16)
    assert late.object_ids == (1, 2)
    assert result.catching_up > 0
    assert same(answered_at_once(small_network, NEVER), late)
    results = catch_up(late, 17)
    assert late.arriving_ids == ()
    assert late.object_ids == (1, 2, 3)
    assert results[max(results)].tracks[2].label == "cup"


def test_its_frames_labels_are_told(small_network: XMem) -> None:
    late = start(small_network)
    results = run(late, 1, 12)
    outcome = show(late, 7, THIRD | {4: mask(30, 44)})
    assert outcome.labels is not None
    assert np.array_equal(outcome.labels == 3, THIRD[3])
    assert np.array_equal(outcome.labels == 4, mask(30, 44) & ~THIRD[3])
    elsewhere = ~(THIRD[3] | mask(30, 44))
    assert np.array_equal(outcome.labels[elsewhere], results[7].labels[elsewhere])


def test_on_the_kept_frame_before_any_object(small_network: XMem) -> None:
    late = start(small_network)
    run(late, 1, 12)
    show(late, 0, THIRD)
    catch_up(late, 13)
    instant = start(small_network)
    instant.add_objects(THIRD)
    assert same(Instant(instant, {}), late)


@pytest.mark.parametrize("second", [9, 5, 3])
def test_one_more_while_the_first_is_arriving(second: int, small_network: XMem) -> None:
    late = start(small_network)
    run(late, 1, 14)
    show(late, 5, THIRD)
    run(late, 15, 16)
    assert late.arriving_ids == (3,)
    show(late, second, FOURTH)
    catch_up(late, 17)
    assert late.arriving_ids == ()
    acts = {5: [add(THIRD)]}
    acts[second] = [*acts.get(second, ()), add(FOURTH)]
    instant = Instant(start(small_network), acts)
    assert same(instant, late)
    assert late.object_ids == instant.lazy.object_ids


def test_one_more_on_a_frame_that_is_not_kept_any_more(small_network: XMem) -> None:
    late = start(small_network, replace(CONFIG, correction_horizon=SECOND))
    run(late, 1, 12)
    show(late, 9, THIRD)
    catch_up(late, 13)
    with pytest.raises(StampError, match="not kept"):
        show(late, 9, FOURTH)
    assert late.object_ids == (1, 2, 3)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_shown_and_corrected_late_in_any_order(order: tuple[int, int], small_network: XMem) -> None:
    late = start(small_network)
    run(late, 1, 14)
    acts = [lambda: show(late, 5, THIRD), lambda: late.apply(correction(9, FIRST))]
    assert acts[order[0]]().applied
    run(late, 15, 17)
    assert late.frames_behind > 0
    assert acts[order[1]]().applied
    catch_up(late, 18)
    instant = Instant(start(small_network), {5: [add(THIRD)], 9: [answer(9, FIRST)]})
    assert same(instant, late)


def test_what_was_gone_through_before_the_change_is_not_repeated(small_network: XMem) -> None:
    late = start(small_network)
    run(late, 1, 30)
    show(late, 5, THIRD)
    run(late, 31, 40)
    left = late.frames_behind
    assert "gone through again" in show(late, 38, FOURTH).reason
    assert late.frames_behind == left  # the way has not come to frame 38 yet
    assert late.apply(correction(22, SECOND_ONE)).applied
    assert left < late.frames_behind < left + 16  # back to a copy of memory before frame 22


def test_a_known_objects_mask_on_a_past_frame(small_network: XMem) -> None:
    late = start(small_network)
    run(late, 1, 15)
    show(late, 7, FIRST)
    assert late.arriving_ids == ()
    catch_up(late, 16)
    assert same(Instant(start(small_network), {7: [add(FIRST)]}), late)


def test_a_known_object_is_shown_on_a_frame_before_its_first(small_network: XMem) -> None:
    late, earlier = start(small_network), {3: mask(26, 40)}
    for index in range(1, 17):
        step(late, index, masks=THIRD if index == 12 else None)
    show(late, 7, earlier)
    catch_up(late, 17)
    assert late.object_ids == (1, 2, 3)
    assert same(Instant(start(small_network), {7: [add(earlier)]}, {12: THIRD}), late)


@pytest.mark.parametrize("delay", [0, 2, 9])
def test_removed_before_it_arrived_it_was_never_shown(delay: int, small_network: XMem) -> None:
    late = start(small_network)
    run(late, 1, 20)
    show(late, 5, THIRD)
    run(late, 21, 20 + delay)
    assert late.arriving_ids == (3,)
    late.remove_objects([3])
    assert late.arriving_ids == ()
    results = catch_up(late, 21 + delay)
    assert all([t.object_id for t in r.tracks] == [1, 2] for r in results.values())
    assert same(answered_at_once(small_network, NEVER), late)
    refused = late.apply(correction(max(results) - 1, THIRD))
    assert "removed" in refused.reason


def test_removed_before_it_arrived_and_shown_again(small_network: XMem) -> None:
    late, again = start(small_network), {3: mask(4, 30)}
    run(late, 1, 15)
    show(late, 5, THIRD)
    run(late, 16, 20)
    late.remove_objects([3])
    show(late, 9, again)
    catch_up(late, 21)
    assert late.object_ids == (1, 2, 3)
    assert same(Instant(start(small_network), {9: [add(again)]}), late)


@pytest.mark.parametrize("gap", [0, 2])
def test_an_id_that_is_given_to_another_object_during_a_catch_up(
    gap: int, small_network: XMem
) -> None:
    """The new object has nothing of the old one, whose id it has."""
    acts: dict[int, list[Act]] = {5: [answer(5, FIRST)], 17: [remove(2)]}
    acts[17 + gap] = [*acts.get(17 + gap, ()), add({2: mask(4, 44)})]
    late = start(small_network)
    for index in range(1, 18 + gap):
        step(late, index)
        if index == 15:
            assert late.apply(correction(5, FIRST)).applied
        for act in acts.get(index, ()) if index >= 17 else ():
            act(late)
    assert late.frames_behind > 0
    catch_up(late, 18 + gap)
    assert late.object_ids == (1, 2)
    alone = Instant(start(small_network), acts)
    assert same(alone, late)
    births = [lazy.tracker.state().births for lazy in (alone.lazy, late)]
    assert births[0] == births[1] == {1: 0, 2: 17 + gap}


def test_the_id_of_another_object_is_refused(small_network: XMem) -> None:
    late = start(small_network)
    run(late, 1, 12)
    late.remove_objects([2])
    run(late, 13, 16)
    assert 2 in late.ids_since(9 * FRAME_TIME)
    assert 2 not in late.ids_since(14 * FRAME_TIME)
    for index in (5, 9):
        with pytest.raises(MaskError, match="another object"):
            show(late, index, {2: mask(2, 2)})
    late.add_objects({2: mask(2, 2)})
    with pytest.raises(MaskError, match="another object"):
        show(late, 9, {2: mask(2, 2)})
    assert late.frames_behind == 0
    assert late.arriving_ids == ()
    run(late, 17, 18)


def test_what_cannot_be_is_refused_and_changes_nothing(small_network: XMem) -> None:
    late = start(small_network)
    run(late, 1, 12)
    for masks, index, error, text in (
        ({}, 5, MaskError, "no mask"),
        ({3: np.zeros((48, 64), bool)}, 5, MaskError, "empty"),
        ({3: np.ones((8, 8), bool)}, 5, MaskError, "like the image"),
        ({0: mask(0, 0)}, 5, MaskError, "not in 1"),
        ({"3": mask(0, 0)}, 5, MaskError, "whole number"),
        (mask(0, 0), 5, MaskError, "by object id"),
        (THIRD, 5.5, StampError, "whole number of nanoseconds"),
        (THIRD, 12, StampError, "not kept"),  # the newest: that is for add_objects
        (THIRD, 500, StampError, "not kept"),
    ):
        with pytest.raises(error, match=text):
            show(late, index, masks)
    with pytest.raises(MaskError, match="empty"):
        show(late, 5, {**THIRD, 4: np.zeros((48, 64), bool)})
    run(late, 13, 25)
    assert same(answered_at_once(small_network, NEVER), late)


def test_an_arriving_object_is_not_corrected_yet(small_network: XMem) -> None:
    late = start(small_network)
    run(late, 1, 20)
    show(late, 5, THIRD)
    step(late, 21)
    for index in (5, 12, 21):
        refused = late.apply(correction(index, {3: mask(20, 20)}))
        assert not refused.applied
        assert "not tracked yet" in refused.reason
    run(late, 22, 40)
    # Now it is, also on frames on which it was not known when they were published.
    assert late.apply(correction(12, {3: mask(20, 20)})).applied
    early = late.apply(correction(3, {3: mask(20, 20)}))
    assert "was not tracked yet on that frame" in early.reason


def test_an_arriving_object_can_be_paused(small_network: XMem) -> None:
    late = start(small_network)
    run(late, 1, 20)
    show(late, 5, THIRD)
    late.pause_objects([3])
    results = run(late, 21, 45)
    states = {t.object_id: t.state for t in results[45].tracks}
    assert states[3] is TrackState.PAUSED
    assert states[1] is not TrackState.PAUSED


def test_every_other_object_may_go_meanwhile(small_network: XMem) -> None:
    late = start(small_network)
    run(late, 1, 20)
    show(late, 5, THIRD)
    step(late, 21)
    late.remove_objects([1, 2])
    results = run(late, 22, 50)
    assert late.object_ids == (3,)
    assert [t.object_id for t in results[50].tracks] == [3]


def test_no_more_frames_are_needed_to_catch_up(small_network: XMem) -> None:
    late = start(small_network)
    run(late, 1, 20)
    show(late, 5, THIRD)
    assert late.catch_up(0.0) > 0
    assert late.catch_up(60.0) == 0
    assert late.object_ids == (1, 2, 3)
    run(late, 21, 29)
    assert same(added_at_once(small_network, 5), late)


@pytest.mark.parametrize("more", [1, 9])
def test_a_snapshot_in_between_has_the_arriving_objects(
    more: int, small_network: XMem, tmp_path: Path
) -> None:
    late = start(small_network)
    run(late, 1, 18)
    late.add_objects(FOURTH)  # known on a frame that is gone through again
    run(late, 19, 22)
    show(late, 9, THIRD, labels={3: "cup"})
    run(late, 23, 22 + more)
    late.remove_objects([2])
    assert late.arriving_ids == (3,)
    write_snapshot(late.snapshot(), tmp_path / "s")
    resumed = LazyTracker(XMemTracker(small_network, TINY), CONFIG)
    resumed.resume(read_snapshot(tmp_path / "s", resumed.tracker))
    assert resumed.object_ids == (1, 3, 4)
    assert resumed.arriving_ids == ()
    result = step(resumed, 23 + more)
    assert result.index == 23 + more
    assert [track.label for track in result.tracks] == ["", "cup", ""]
    assert all(track.uncertainty_rate is not None for track in result.tracks)
    # The one that the snapshot was made of is not disturbed by it.
    catch_up(late, 23 + more)
    acts = {9: [add(THIRD)], 18: [add(FOURTH)], 22 + more: [remove(2)]}
    assert same(Instant(start(small_network), acts), late)
    assert late.object_ids == (1, 3, 4)


def test_a_snapshot_in_between_is_that_of_the_frame_gone_through_last(small_network: XMem) -> None:
    """Going on from it is going on from the corrected past."""
    late = start(small_network)
    run(late, 1, 20)
    show(late, 5, THIRD)
    run(late, 21, 23)
    gone_through = 23 - late.frames_behind  # the last frame is still open
    resumed = LazyTracker(XMemTracker(small_network, TINY), CONFIG)
    resumed.resume(late.snapshot())
    run(resumed, gone_through, gone_through + 4)
    probabilities = added_at_once(small_network, 5)[gone_through + 4].probabilities
    assert resumed.tracker.frame is not None
    assert torch.equal(resumed.tracker.frame.probabilities, probabilities)


def test_an_object_added_after_a_snapshot_has_gone_through_the_newest_frame(
    small_network: XMem,
) -> None:
    """The catch-up has passed the frame, but has not taken over."""
    fifth = {5: mask(20, 4)}
    late = start(small_network)
    run(late, 1, 20)
    show(late, 5, THIRD)
    step(late, 21)
    late.add_objects(FOURTH)
    late.snapshot()  # closes the frame and looks for the objects that are known on it
    assert late.frames_behind == 0
    assert late.arriving_ids == (3,)
    late.add_objects(fifth)
    catch_up(late, 22)
    assert late.object_ids == (1, 2, 3, 4, 5)
    acts = {5: [add(THIRD)], 21: [add(FOURTH), add(fifth)]}
    assert same(Instant(start(small_network), acts), late)


def test_its_frame_may_leave_the_horizon_while_it_arrives(small_network: XMem) -> None:
    """What the catch-up needs it holds on to, and a correction on its way still reaches it."""
    config = replace(CONFIG, correction_horizon=SECOND, history_time=10 * SECOND)
    late = start(small_network, config)
    run(late, 1, 20)
    show(late, 11, THIRD)
    run(late, 21, 28)
    assert late.frames_behind > 0
    outcome = late.apply(correction(16, FIRST))
    assert outcome.applied
    assert "the frame's own" in outcome.reason
    catch_up(late, 29)
    acts = {11: [add(THIRD)], 16: [answer(16, FIRST)]}
    assert same(Instant(start(small_network, config), acts), late)


def test_it_is_shown_on_a_frame_from_which_all_others_have_gone(small_network: XMem) -> None:
    late = start(small_network, CONFIG, CALIBRATION)
    run(late, 1, 7)
    late.remove_objects([1, 2])
    late.close()
    assert late.add_to_past({3: mask(30, 40)}, 7 * FRAME_TIME).applied
    catch_up(late, 8)
    assert late.object_ids == (3,)
