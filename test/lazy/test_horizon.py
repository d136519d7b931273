# SPDX-License-Identifier: Apache-2.0
"""The horizon within its bytes: what is kept of a past frame, and that it is enough."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from late_runs import CONFIG, FIRST, FRAME_TIME, correction, run, same, start, step
from random_clip import SIZE, TINY, image, mask

from lazyxmem_ros.lazy import LazyTracker
from lazyxmem_ros.xmem import TrackerState, XMem, XMemTracker

PIXELS = SIZE[0] * SIZE[1] * 3
"""Bytes of an image."""
HORIZON = CONFIG.correction_horizon // FRAME_TIME
TIGHT = replace(CONFIG, correction_bytes=1_100_000)
"""The horizon fits where copies lie further apart than usual: see `copying.copy_period`."""


def bytes_of(state: TrackerState) -> int:
    """Bytes of a copy but for the image, which is its frame's."""
    assert state.frame is not None
    return sum({id(t): t.nbytes for t in state.kept() if t is not state.frame.pixels}.values())


def gaps(lazy: LazyTracker) -> list[int]:
    """Frames between one copy of memory and the next."""
    copied = [r.index for r in lazy._state.history.replayable() if r.state is not None]
    return [int(gap) for gap in np.diff(copied)]


def test_of_a_past_frame_the_image_stays(small_network: XMem) -> None:
    lazy = start(small_network, TIGHT)
    run(lazy, {}, 2 * HORIZON)
    history = lazy._state.history
    *past, newest = history.replayable()
    assert newest.frame.predicted
    released = [r for r in past if not r.frame.predicted and r.state is None]
    assert len(released) > HORIZON // 2
    assert {sum(r.tensors.values()) for r in released} == {PIXELS}
    copies = [r for r in past if not r.frame.predicted and r.state is not None]
    assert copies
    for record in copies:
        assert sum(record.tensors.values()) == PIXELS + bytes_of(record.state)
    assert any(r.state.memory.before is not None for r in copies)
    assert min(gaps(lazy)) * FRAME_TIME > CONFIG.state_period
    assert history.feature_bytes <= TIGHT.correction_bytes
    assert (lazy.frames_evicted, lazy.correction_reach) == (0, CONFIG.correction_horizon)


def test_it_is_enough_for_an_exact_correction_and_all_of_it_fits(small_network: XMem) -> None:
    """As far back as the horizon reaches; forks and what they make on the way are counted."""
    instant, tight = start(small_network), start(small_network, TIGHT)
    corrected, answered, last = HORIZON + 10, 2 * HORIZON + 10, 3 * HORIZON + 30
    for index in range(1, last):
        for lazy in (instant, tight):
            step(lazy, index)
        if index == corrected:
            assert instant.apply(correction(corrected, FIRST)).applied
        if index == answered:
            outcome = tight.apply(correction(corrected, FIRST))
            assert outcome.applied
            assert "the frame's own" in outcome.reason
            assert outcome.labels is not None
            assert np.array_equal(outcome.labels == 1, FIRST[1])
        kept = tight._state.history.feature_bytes + tight._past.nbytes
        assert kept <= TIGHT.correction_bytes, f"frame {index}"
        if index > HORIZON:
            assert tight.correction_reach == CONFIG.correction_horizon, f"frame {index}"
    assert tight.frames_behind == 0
    assert tight.frames_evicted == 0
    assert same(instant, tight)
    mine, theirs = (lazy.tracker.state().memory for lazy in (tight, instant))
    assert all(torch.equal(mine.column(name), array) for name, array in theirs.shared.items())
    assert all(torch.equal(mine.values_of(i), array) for i, array in theirs.values.items())


def test_with_a_period_of_0_each_frame_has_a_copy(small_network: XMem) -> None:
    lazy = start(small_network, replace(CONFIG, state_period=0))
    run(lazy, {}, HORIZON)
    assert set(gaps(lazy)) == {1}


@pytest.mark.parametrize("last", [57, 63])
def test_corrections_reach_as_far_as_is_said(last: int, small_network: XMem) -> None:
    """Also where a copy of memory lies between the horizon's edge and the oldest frame."""
    lazy = start(small_network)
    run(lazy, {}, last)
    assert lazy.correction_reach == CONFIG.correction_horizon
    oldest = last * FRAME_TIME - lazy.correction_reach
    assert lazy.keeps(oldest)
    outcome = lazy.apply(correction(oldest // FRAME_TIME, FIRST))
    assert "the frame's own" in outcome.reason


def test_of_a_frame_that_was_let_go_the_published_masks_show(small_network: XMem) -> None:
    lazy = start(small_network, TIGHT)
    results = run(lazy, {}, 2 * HORIZON)
    index = HORIZON + 5
    assert not lazy._past.replayable(index * FRAME_TIME)[0].frame.predicted
    answer = mask(3, 3)
    outcome = lazy.apply(correction(index, {1: answer}))
    expected = results[index].labels.copy()
    expected[expected == 1] = 0
    expected[answer] = 1
    assert np.array_equal(outcome.labels, expected)
    back = lazy.retract(index * FRAME_TIME, 1)
    assert np.array_equal(back.labels, results[index].labels)


@pytest.mark.parametrize(("limit", "source"), [(0, "pixels"), (16, "image")])
def test_the_smaller_form_of_the_image_stays(limit: int, source: str, small_network: XMem) -> None:
    """The scaled one where much is scaled away; either gives the same bits again."""
    tracker = XMemTracker(small_network, TINY, max_internal_size=limit)
    frame = tracker.segment(image(0), {1: mask(0, 0)})
    assert frame.image is not None
    before = frame.image.clone()
    tracker.memorize(frame)
    frame.settle()
    frame.release()
    kept = getattr(frame, source)
    assert [t is kept for t in frame.kept() if t.numel() and t.dim() > 2][:1] == [True]
    assert kept.nbytes == min(PIXELS, before.nbytes)
    assert torch.equal(tracker._inference.image(frame), before)
