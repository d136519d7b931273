# SPDX-License-Identifier: Apache-2.0
"""Objects shown on past frames: once caught up, exactly what showing them at once leads to."""

from dataclasses import replace
from pathlib import Path

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
    same,
    start,
    step,
)
from random_clip import TINY, mask

from lazyxmem_ros.lazy import (
    SECOND,
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


def added_at_once(
    network: XMem, index: int, masks, last: int, config=CONFIG, iou_predictor=None
) -> LazyTracker:
    lazy = start(network, config, iou_predictor)
    run(lazy, 1, index)
    lazy.add_objects(masks)
    run(lazy, index + 1, last)
    return lazy


@pytest.mark.parametrize("delay", [1, 3, 12, 25])
@pytest.mark.parametrize("index", [5, 7])  # with a copy of memory of its own, and between two
def test_once_caught_up_it_is_as_if_the_object_had_been_shown_at_once(
    delay: int, index: int, small_network: XMem
) -> None:
    instant = added_at_once(small_network, index, THIRD, 60, iou_predictor=CALIBRATION)
    late = start(small_network, CONFIG, CALIBRATION)
    run(late, 1, index + delay)
    outcome = show(late, index, THIRD)
    assert outcome.applied
    assert outcome.applied_stamp == index * FRAME_TIME
    assert f"shown {delay} frames late" in outcome.reason
    results = run(late, index + delay + 1, 60)
    caught_up = [i for i, result in results.items() if result.caught_up]
    assert len(caught_up) == 1
    assert caught_up[0] <= index + 2 * delay + 15
    for i, result in results.items():
        ids = [track.object_id for track in result.tracks]
        assert ids == ([1, 2, 3] if i >= caught_up[0] else [1, 2])
    assert same(instant, late)
    assert late.tracker.memory_tokens == instant.tracker.memory_tokens
    # What is said from now on is the same as well: states, uncertainty, its rate, predicted IoU.
    assert step(late, 61).tracks == step(instant, 61).tracks


def test_until_then_the_others_are_tracked_on_and_it_is_known_as_arriving(
    small_network: XMem,
) -> None:
    plain, late = start(small_network), start(small_network)
    run(plain, 1, 21)
    run(late, 1, 20)
    show(late, 5, THIRD, labels={3: "cup"})
    assert late.arriving_ids == (3,)
    result = step(late, 21)
    assert late.object_ids == (1, 2)
    assert result.catching_up > 0
    assert same(plain, late)
    results = run(late, 22, 60)
    assert late.arriving_ids == ()
    assert late.object_ids == (1, 2, 3)
    assert results[60].tracks[2].label == "cup"


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
    instant = added_at_once(small_network, 0, THIRD, 40)
    run(late, 13, 40)
    assert same(instant, late)


@pytest.mark.parametrize(("second", "when"), [(9, 22), (5, 22), (3, 22), (9, 60)])
def test_one_more_while_the_first_is_arriving_or_afterwards(
    second: int, when: int, small_network: XMem
) -> None:
    instant, late = start(small_network), start(small_network)
    for index in range(1, 101):
        step(instant, index)
        for at, masks in sorted({5: THIRD, second: FOURTH}.items()) if second != 5 else ():
            if index == at:
                instant.add_objects(masks)
        if second == 5 and index == 5:
            instant.add_objects(THIRD)
            instant.add_objects(FOURTH)
    run(late, 1, 20)
    show(late, 5, THIRD)
    run(late, 21, when)
    # Kept for 5 s = 50 frames.
    if when == 60:
        with pytest.raises(StampError, match="not kept"):
            show(late, second, FOURTH)
        return
    show(late, second, FOURTH)
    run(late, when + 1, 100)
    assert late.arriving_ids == ()
    assert late.object_ids == instant.object_ids
    assert same(instant, late)


def test_shown_and_corrected_late_in_any_order(small_network: XMem) -> None:
    instant = start(small_network)
    for index in range(1, 81):
        step(instant, index)
        if index == 5:
            instant.add_objects(THIRD)
        if index == 9:
            assert instant.apply(correction(9, FIRST)).applied
    for order in ((0, 1), (1, 0)):
        late = start(small_network)
        run(late, 1, 20)
        acts = [lambda t=late: show(t, 5, THIRD), lambda t=late: t.apply(correction(9, FIRST))]
        assert acts[order[0]]().applied
        run(late, 21, 24)
        assert acts[order[1]]().applied
        run(late, 25, 80)
        assert late.frames_behind == 0
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
    instant, late = added_at_once(small_network, 7, FIRST, 60), start(small_network)
    run(late, 1, 19)
    show(late, 7, FIRST)
    assert late.arriving_ids == ()
    run(late, 20, 60)
    assert same(instant, late)


def test_a_known_object_is_shown_on_a_frame_before_its_first(small_network: XMem) -> None:
    instant, late = start(small_network), start(small_network)
    earlier = {3: mask(26, 40)}
    for lazy in (instant, late):
        for index in range(1, 61):
            step(lazy, index, **({"masks": THIRD} if index == 12 else {}))
            if lazy is instant and index == 7:
                lazy.add_objects(earlier)
            if lazy is late and index == 19:
                show(lazy, 7, earlier)
    assert late.object_ids == instant.object_ids == (1, 2, 3)
    assert same(instant, late)


@pytest.mark.parametrize("delay", [0, 2, 9])
def test_removed_before_it_arrived_it_was_never_shown(delay: int, small_network: XMem) -> None:
    plain, late = start(small_network), start(small_network)
    run(plain, 1, 70)
    run(late, 1, 20)
    show(late, 5, THIRD)
    run(late, 21, 20 + delay)
    assert late.arriving_ids == (3,)
    late.remove_objects([3])
    assert late.arriving_ids == ()
    results = run(late, 21 + delay, 70)
    assert all([t.object_id for t in r.tracks] == [1, 2] for r in results.values())
    assert late.frames_behind == 0
    assert same(plain, late)
    refused = late.apply(correction(69, THIRD))
    assert "removed" in refused.reason


def test_removed_before_it_arrived_and_shown_again(small_network: XMem) -> None:
    instant, late = added_at_once(small_network, 9, {3: mask(4, 30)}, 90), start(small_network)
    run(late, 1, 20)
    show(late, 5, THIRD)
    run(late, 21, 26)
    late.remove_objects([3])
    show(late, 9, {3: mask(4, 30)})
    run(late, 27, 90)
    assert late.object_ids == (1, 2, 3)
    assert same(instant, late)


@pytest.mark.parametrize("gap", [0, 2])
def test_an_id_that_is_given_to_another_object_during_a_catch_up(
    gap: int, small_network: XMem
) -> None:
    """The new object has nothing of the old one, whose id it has."""
    alone, late = start(small_network), start(small_network)
    for lazy, answered in ((alone, 5), (late, 20)):
        for index in range(1, 81):
            step(lazy, index)
            if index == answered:
                assert lazy.apply(correction(5, FIRST)).applied
            if index == 22:
                lazy.remove_objects([2])
            if index == 22 + gap:
                lazy.add_objects({2: mask(4, 44)})
    assert late.frames_behind == 0
    assert late.object_ids == alone.object_ids == (1, 2)
    births = [lazy.tracker.state().births for lazy in (alone, late)]
    assert births[0] == births[1] == {1: 0, 2: 22 + gap}
    torch.testing.assert_close(probabilities(alone), probabilities(late), rtol=0, atol=1e-3)


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
    plain, late = start(small_network), start(small_network)
    run(plain, 1, 40)
    run(late, 1, 12)
    for masks, index, error, text in (
        ({}, 5, MaskError, "no mask"),
        ({3: np.zeros((48, 64), bool)}, 5, MaskError, "empty"),
        ({3: np.ones((8, 8), bool)}, 5, MaskError, "like the image"),
        ({0: mask(0, 0)}, 5, MaskError, "not in 1"),
        (THIRD, 12, StampError, "not kept"),  # the newest: that is for add_objects
        (THIRD, 500, StampError, "not kept"),
    ):
        with pytest.raises(error, match=text):
            show(late, index, masks)
    with pytest.raises(MaskError, match="empty"):
        show(late, 5, {**THIRD, 4: np.zeros((48, 64), bool)})
    run(late, 13, 40)
    assert same(plain, late)


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
    instant, late = added_at_once(small_network, 5, THIRD, 20), start(small_network)
    run(late, 1, 20)
    show(late, 5, THIRD)
    assert late.catch_up(0.0) > 0
    assert late.catch_up(60.0) == 0
    assert late.object_ids == (1, 2, 3)
    instant.close()
    for index in range(21, 30):
        assert np.array_equal(step(instant, index).labels, step(late, index).labels)


@pytest.mark.parametrize("more", [1, 4, 9])
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
    instant = start(small_network)
    for index in range(1, 61):
        step(instant, index)
        if index == 9:
            instant.add_objects(THIRD)
        if index == 18:
            instant.add_objects(FOURTH)
        if index == 22 + more:
            instant.remove_objects([2])
    run(late, 23 + more, 60)
    assert late.object_ids == instant.object_ids == (1, 3, 4)
    torch.testing.assert_close(probabilities(instant), probabilities(late), rtol=0, atol=1e-3)


def test_a_snapshot_in_between_is_that_of_the_frame_gone_through_last(small_network: XMem) -> None:
    """Going on from it is going on from the corrected past."""
    late = start(small_network)
    run(late, 1, 20)
    show(late, 5, THIRD)
    run(late, 21, 23)
    gone_through = 23 - late.frames_behind  # the last frame is still open
    resumed = LazyTracker(XMemTracker(small_network, TINY), CONFIG)
    resumed.resume(late.snapshot())
    instant = added_at_once(small_network, 5, THIRD, gone_through - 1)
    for index in range(gone_through, gone_through + 5):
        assert np.array_equal(step(resumed, index).labels, step(instant, index).labels)


def test_an_object_added_after_a_snapshot_has_gone_through_the_newest_frame(
    small_network: XMem,
) -> None:
    """The catch-up has passed the frame, but has not taken over."""
    fifth = {5: mask(20, 4)}
    instant, late = start(small_network), start(small_network)
    for index in range(1, 61):
        step(instant, index)
        if index == 5:
            instant.add_objects(THIRD)
        if index == 21:
            instant.add_objects(FOURTH)
            instant.add_objects(fifth)
    run(late, 1, 20)
    show(late, 5, THIRD)
    step(late, 21)
    late.add_objects(FOURTH)
    late.snapshot()  # closes the frame and looks for the objects that are known on it
    assert late.frames_behind == 0
    assert late.arriving_ids == (3,)
    late.add_objects(fifth)
    run(late, 22, 60)
    assert late.object_ids == instant.object_ids == (1, 2, 3, 4, 5)
    assert same(instant, late)


def test_its_frame_may_leave_the_horizon_while_it_arrives(small_network: XMem) -> None:
    """What the catch-up needs it holds on to, and a correction on its way still reaches it."""
    config = replace(CONFIG, correction_horizon=SECOND, history_time=10 * SECOND)
    instant, late = start(small_network, config), start(small_network, config)
    for index in range(1, 61):
        step(instant, index)
        if index == 11:
            instant.add_objects(THIRD)
        if index == 16:
            assert instant.apply(correction(16, FIRST)).applied
    run(late, 1, 20)
    show(late, 11, THIRD)
    run(late, 21, 28)
    assert late.frames_behind > 0
    outcome = late.apply(correction(16, FIRST))
    assert outcome.applied
    assert "the frame's own" in outcome.reason
    run(late, 29, 60)
    assert late.frames_behind == 0
    assert same(instant, late)
