# SPDX-License-Identifier: Apache-2.0
"""The click that the tracker suggests itself."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from lazyxmem_ros.correction.base import box_of_mask
from lazyxmem_ros.lazy import operator_prompt, pseudo_click, pseudo_prompt


def blob(seed: int, size=(60, 80)) -> np.ndarray:
    generator = np.random.default_rng(seed)
    mask = np.zeros(size, bool)
    for _ in range(4):
        y, x = generator.integers(5, 40), generator.integers(5, 55)
        mask[y : y + generator.integers(5, 18), x : x + generator.integers(5, 22)] = True
    return mask


@pytest.mark.parametrize("seed", range(5))
def test_the_click_is_the_arg_max_of_distance_times_certainty(seed):
    mask = blob(seed)
    entropy = np.random.default_rng(seed + 99).random(mask.shape)
    merit = distance_transform_edt(np.pad(mask, 1, mode="edge"))[1:-1, 1:-1] * (1 - entropy)
    x, y = pseudo_click(mask, entropy)
    assert mask[y, x]
    assert merit[y, x] == pytest.approx(merit.max(), rel=1e-5)


def test_uncertainty_moves_the_click():
    mask = np.zeros((20, 40), bool)
    mask[2:18, 2:38] = True
    entropy = np.zeros(mask.shape)
    entropy[:, :20] = 0.9
    x, _ = pseudo_click(mask, entropy)
    assert x >= 20


def test_the_click_stays_on_the_mask_when_nothing_is_certain():
    mask = np.zeros((20, 30), bool)
    mask[5:9, 12] = True
    x, y = pseudo_click(mask, np.ones(mask.shape))
    assert mask[y, x]


def test_edges():
    assert pseudo_click(np.zeros((5, 5), bool), np.zeros((5, 5))) is None
    everywhere = pseudo_click(np.ones((6, 7), bool), np.zeros((6, 7)))
    assert everywhere is not None
    one = np.zeros((5, 5), bool)
    one[4, 4] = True
    assert pseudo_click(one, np.zeros((5, 5))) == (4, 4)


def test_prompts():
    mask = blob(1)
    own = pseudo_prompt(mask, np.zeros(mask.shape))
    assert own.positive.shape == (1, 2)
    assert own.mask is mask
    asked = operator_prompt(mask)
    assert (len(asked.positive), asked.box, asked.mask) == (0, None, mask)
    assert len(pseudo_prompt(np.zeros((4, 4), bool), np.zeros((4, 4))).positive) == 0


def test_box_of_mask():
    mask = np.zeros((10, 20), bool)
    assert box_of_mask(mask) is None
    mask[3:5, 7:12] = True
    assert box_of_mask(mask) == (7, 3, 12, 5)
