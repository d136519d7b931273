# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lazyxmem_ros.evaluation import metrics
from lazyxmem_ros.evaluation.errors import MetricError

GOLDEN = Path(__file__).parents[1] / "data" / "metrics.npz"


def test_region_and_boundary_equal_the_official_values() -> None:
    golden = np.load(GOLDEN)
    pairs = list(zip(golden["predictions"], golden["ground_truths"], strict=True))
    assert len(pairs) == 17
    regions = [metrics.region_similarity(prediction, truth) for prediction, truth in pairs]
    boundaries = [metrics.boundary_f(prediction, truth) for prediction, truth in pairs]
    np.testing.assert_allclose(regions, golden["J"], atol=1e-12)
    np.testing.assert_allclose(boundaries, golden["F"], atol=1e-12)


def test_boundary_of_a_large_shifted_square() -> None:
    truth = np.zeros((480, 854), bool)
    truth[100:300, 200:500] = True
    # 0.8 % of the diagonal (979.6 pixels) is 7.8, so 8 pixels: a shift by 8 is forgiven, by 20 not.
    assert metrics.boundary_f(np.roll(truth, 8, axis=1), truth) == 1.0
    assert metrics.boundary_f(np.roll(truth, 20, axis=1), truth) < 0.75
    assert metrics.boundary_f(np.roll(truth, 8, axis=1), truth, tolerance=7) < 1.0


def test_different_shapes_are_refused() -> None:
    with pytest.raises(MetricError, match="one size"):
        metrics.region_similarity(np.zeros((4, 5)), np.zeros((5, 4)))
    with pytest.raises(MetricError, match="one size"):
        metrics.boundary_f(np.zeros((4, 5, 3)), np.zeros((4, 5, 3)))


def test_sequence_statistics_by_hand() -> None:
    statistics = metrics.sequence_statistics([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])
    assert statistics.mean == pytest.approx(0.65)
    assert statistics.recall == pytest.approx(5 / 8)
    # Quarters of eight frames, borders shared: frames 1-3 and 6-8.
    assert statistics.decay == pytest.approx(0.9 - 0.4)
    with_gaps = metrics.sequence_statistics([1.0, np.nan, 0.5])
    assert with_gaps.mean == pytest.approx(0.75)
    assert with_gaps.recall == pytest.approx(0.5)
    assert np.isnan(metrics.sequence_statistics([np.nan]).mean)


def test_robustness_counts_frames_at_the_threshold() -> None:
    scores = [0.1, 0.25, 0.5, 0.9, np.nan]
    assert metrics.robustness(scores, 0.1) == 1.0
    assert metrics.robustness(scores, 0.25) == 0.75
    assert metrics.robustness(scores, 0.5) == 0.5
    assert np.isnan(metrics.robustness([], 0.5))


def test_interactions_by_hand() -> None:
    twice = metrics.ObjectInteractions(frames=10, corrected_at=(8, 2))
    never = metrics.ObjectInteractions(frames=5, corrected_at=())
    # By the formula: corrections so far, summed over the frames, over the number of frames.
    so_far = np.cumsum([0, 0, 1, 0, 0, 0, 0, 0, 1, 0])
    assert metrics.average_cumulative_interactions(twice) == pytest.approx(so_far.sum() / 10)
    statistics = metrics.interaction_statistics([twice, never], sequence_frames=20)
    assert statistics.corrections == 2
    assert statistics.per_1000_frames == pytest.approx(100.0)
    assert statistics.interval_mean == statistics.interval_median == 6
    assert statistics.aci_sum == pytest.approx(1.0)
    assert statistics.aci_mean == pytest.approx(0.5)
    with pytest.raises(MetricError, match="outside"):
        metrics.ObjectInteractions(frames=3, corrected_at=(3,))
