# SPDX-License-Identifier: Apache-2.0
"""The bounded memory of past masks."""

from __future__ import annotations

import numpy as np
import pytest

from lazyxmem_ros.lazy.history import PackedMask, PastFrame, RecentFrames


def past(stamp: int) -> PastFrame:
    return PastFrame(stamp, stamp, (4, 4), {1: PackedMask.pack(np.eye(4, dtype=bool))})


@pytest.mark.parametrize("seed", range(4))
def test_packing_loses_nothing(seed):
    generator = np.random.default_rng(seed)
    size = (int(generator.integers(1, 40)), int(generator.integers(1, 40)))
    mask = generator.random(size) < 0.3
    assert np.array_equal(PackedMask.pack(mask).unpack(size), mask)


def test_an_empty_mask_packs_to_nothing():
    packed = PackedMask.pack(np.zeros((7, 9), bool))
    assert packed.box is None
    assert not packed.unpack((7, 9)).any()


def test_bounded_in_number():
    recent = RecentFrames(max_time=10**9, max_frames=3)
    for stamp in range(10):
        recent.add(past(stamp))
    assert len(recent) == 3
    assert recent.find(6) is None
    assert recent.oldest.stamp == 7
    assert recent.newest.stamp == 9


def test_bounded_in_time():
    recent = RecentFrames(max_time=5, max_frames=100)
    for stamp in (0, 3, 4, 9, 10):
        recent.add(past(stamp))
    assert [recent.find(s) is not None for s in (0, 3, 4, 9, 10)] == [
        False,
        False,
        False,
        True,
        True,
    ]
    recent.add(past(1000))  # the newest is always kept
    assert len(recent) == 1
    assert recent.nbytes == 2


def test_bounds_can_shrink():
    recent = RecentFrames(max_time=100, max_frames=100)
    for stamp in range(10):
        recent.add(past(stamp))
    recent.set_bounds(max_time=4, max_frames=100)
    assert recent.oldest.stamp == 5
    recent.clear()
    assert recent.newest is None
    assert recent.oldest is None
