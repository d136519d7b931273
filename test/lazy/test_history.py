# SPDX-License-Identifier: Apache-2.0
"""The bounded memory of past masks."""

from __future__ import annotations

import numpy as np
import pytest

from lazyxmem_ros.lazy.config import LazyConfig
from lazyxmem_ros.lazy.history import History
from lazyxmem_ros.lazy.packed import PackedLabels, PackedMask
from lazyxmem_ros.lazy.record import FrameRecord


def bounds(max_time: int, max_frames: int) -> LazyConfig:
    return LazyConfig(history_time=max_time, history_frames=max_frames, correction_horizon=0)


def past(stamp: int) -> FrameRecord:
    return FrameRecord(stamp, stamp, (4, 4), {1: PackedMask.pack(np.eye(4, dtype=bool))})


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


def test_a_label_map_packs_to_the_bits_of_its_objects() -> None:
    labels = np.zeros((20, 30), np.uint16)
    labels[2:6, 3:11], labels[10:12, 0:4], labels[4, 20] = 7, 65_535, 300
    packed = PackedLabels.pack(labels)
    assert np.array_equal(packed.unpack(), labels)
    assert packed.unpack().dtype == np.uint16
    assert packed.nbytes == (4 * 8 + 2 * 4) // 8 + 1


def test_bounded_in_number():
    history = History(bounds(10**9, 3))
    for stamp in range(10):
        history.add(past(stamp))
    assert len(history) == 3
    assert history.find(6) is None
    assert history.oldest.stamp == 7
    assert history.newest.stamp == 9


def test_bounded_in_time():
    history = History(bounds(5, 100))
    for stamp in (0, 3, 4, 9, 10):
        history.add(past(stamp))
    assert [history.find(s) is not None for s in (0, 3, 4, 9, 10)] == [
        False,
        False,
        False,
        True,
        True,
    ]
    history.add(past(1000))  # the newest is always kept
    assert len(history) == 1
    assert history.nbytes == 2


def test_bounds_can_shrink():
    history = History(bounds(100, 100))
    for stamp in range(10):
        history.add(past(stamp))
    history.configure(bounds(4, 100))
    assert history.oldest.stamp == 5
    history.clear()
    assert history.newest is None
    assert history.oldest is None
