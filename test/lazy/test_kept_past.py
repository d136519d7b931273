# SPDX-License-Identifier: Apache-2.0
"""What is kept of the past for late corrections, and what happens where that is too little."""

import mmap
from dataclasses import replace

import numpy as np
import pytest
import torch
from late_runs import (
    CONFIG,
    FIRST,
    FRAME_TIME,
    SECOND_ONE,
    answered_at_once,
    catch_up,
    correction,
    newest,
    probabilities,
    run,
    same,
    start,
    step,
)
from random_clip import TINY, image, mask

from lazyxmem_ros.basics import SECOND
from lazyxmem_ros.lazy import LazyTracker
from lazyxmem_ros.xmem import XMem, XMemTracker


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


@pytest.mark.parametrize("change", [{"correction_horizon": 0}, {"correction_bytes": 1}])
def test_a_catch_up_ends_well_although_no_more_is_kept(change, small_network: XMem) -> None:
    late = start(small_network)
    run(late, {15: [correction(5, FIRST)]}, 18)
    assert late.frames_behind > 0
    late.config = replace(CONFIG, **change)
    catch_up(late, 19)
    assert same(answered_at_once(small_network, 5), late)


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
