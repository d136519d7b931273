# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.pond import FRAME_SIZE, Scene, SceneConfig


@pytest.fixture(scope="module")
def areas() -> np.ndarray:
    """Visible pixels of the target every 0.2 s."""
    scene = Scene(SceneConfig(rate=5.0))
    return np.array([int((frame.labels == 1).sum()) for frame in scene])


def test_the_script_plays(areas: np.ndarray) -> None:
    assert len(areas) == 75
    hidden = np.flatnonzero(areas == 0)
    # One stretch of hiding, at least 0.8 s between its first and last sample, so about a second.
    assert len(hidden) >= 5
    assert (np.diff(hidden) == 1).all()
    assert areas[0] > 4000
    assert areas[-1] > 4000
    back = areas[hidden[-1] + 1 :]
    crossing = back[int(np.argmax(back)) :]
    assert crossing.min() < 0.7 * areas[0], "the look-alike should cover part of the target"


def test_frames_are_the_same_for_the_same_seed() -> None:
    config = SceneConfig(rate=10.0, duration=5.0)
    first, again = Scene(config).render(12), Scene(config).render(12)
    assert first.image.shape == (*FRAME_SIZE, 3)
    assert first.image.dtype == np.uint8
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, again.labels)
    other = Scene(SceneConfig(rate=10.0, duration=5.0, seed=8)).render(12)
    assert (first.image != other.image).mean() > 0.5


def test_the_target_stands_out_and_bends() -> None:
    scene = Scene(SceneConfig(rate=10.0, duration=3.0))
    frames = [scene.render(index) for index in (0, 12, 24)]
    for frame in frames:
        target = frame.image[frame.labels == 1].mean(axis=0)
        rest = frame.image[frame.labels == 0].mean(axis=0)
        assert np.abs(target - rest).max() > 40
    boxes = []
    for frame in frames:
        rows, columns = np.nonzero(frame.labels)
        boxes.append((np.ptp(rows), np.ptp(columns)))
    assert len(set(boxes)) == 3


def test_bad_settings() -> None:
    with pytest.raises(DatasetError, match="rate"):
        SceneConfig(rate=0)
    with pytest.raises(DatasetError, match="duration"):
        SceneConfig(duration=60)
    with pytest.raises(IndexError):
        Scene(SceneConfig(duration=1.0)).render(10)
