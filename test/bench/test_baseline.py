# SPDX-License-Identifier: Apache-2.0
"""The plain implementation that speed is compared with, against the published code's outputs."""

import numpy as np
import pytest
from golden import DATA, TOLERANCE, deviation, memory_config

from bench.baseline import BaselineTracker, masked_entropy
from lazyxmem_ros.xmem import XMem

ENTROPY_ROUNDING = 5.1e-5
"""The golden entropies are rounded to 4 decimals, pixel by pixel."""
RIM = 2
"""Pixels of a dilated mask, at most, for each of the mask's."""


@pytest.mark.parametrize("name", ["long_term", "unsynced_deep_update"])
def test_sequence_agrees(name: str, golden_network: XMem) -> None:
    golden = np.load(DATA / f"sequence_{name}.npz")
    tracker = BaselineTracker(golden_network, memory_config(golden["config"]))
    last = len(golden["frames"]) - 1
    for i, image in enumerate(golden["frames"]):
        masks = golden["first_masks"] > 0 if i == 0 else None
        probabilities = tracker.step(image, masks, last=i == last)
        assert deviation(probabilities, golden["probs"][i]) <= TOLERANCE, f"frame {i}"
        sizes = [0 if each is None else len(each) for each in (tracker.working, tracker.long_term)]
        assert sizes == golden["memory_sizes"][i].tolist(), f"frame {i}"


@pytest.mark.parametrize("index", [0, 1])
def test_entropy_agrees(index: int) -> None:
    golden = np.load(DATA / "entropy.npz")
    probabilities = golden[f"prob{index}"]
    wanted = golden[f"masked_entropy{index}"]
    assert masked_entropy(probabilities) == pytest.approx(wanted, abs=ENTROPY_ROUNDING * RIM)
