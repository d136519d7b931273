# SPDX-License-Identifier: Apache-2.0
"""Whole sequences against the published implementation."""

import numpy as np
import pytest
from golden import DATA, TOLERANCE, deviation, memory_config

from lazyxmem_ros.xmem import XMem, XMemTracker


@pytest.mark.parametrize(
    "name", ["working_memory", "long_term", "new_object", "unsynced_deep_update"]
)
def test_sequence_agrees(name: str, golden_network: XMem) -> None:
    golden = np.load(DATA / f"sequence_{name}.npz")
    tracker = XMemTracker(golden_network, memory_config(golden["config"]))
    given = {0: {1: golden["first_masks"][0] > 0, 2: golden["first_masks"][1] > 0}}
    if "added_at" in golden:
        given[int(golden["added_at"])] = {3: golden["added_mask"] > 0}
    last = len(golden["frames"]) - 1
    for i, image in enumerate(golden["frames"]):
        frame = tracker.segment(image, given.get(i))
        assert len(frame.object_ids) == golden["num_objects"][i]
        assert deviation(frame.probabilities, golden["probs"][i]) <= TOLERANCE, f"frame {i}"
        if i < last:  # the golden run ends without an update after the last frame
            tracker.memorize(frame)
        assert tracker.memory_tokens == tuple(golden["memory_sizes"][i]), f"frame {i}"


def test_corrections_agree(golden_network: XMem) -> None:
    golden = np.load(DATA / "sequence_corrections.npz")
    video = np.load(DATA / "sequence_long_term.npz")
    held, corrected_at = set(golden["held_back"].tolist()), int(golden["corrected_at"])
    masks = {n + 1: video["first_masks"][n] > 0 for n in range(2)}
    corrected = {n + 1: golden["corrected_masks"][n] > 0 for n in range(2)}
    tracker = XMemTracker(golden_network, memory_config(golden["config"]))
    frames = int(golden["num_frames"])
    for i in range(frames):
        frame = tracker.segment(video["frames"][i], masks if i == 0 else None)
        expected = golden["probs"][i].copy()
        if i == corrected_at:
            # Stored after the published code had emptied the corrected region of its objects.
            covered = golden["corrected_masks"].any(0)
            assert not expected[1:, covered].any()
            expected[1:, covered] = frame.probabilities.numpy()[1:, covered]
        assert deviation(frame.probabilities, expected) <= TOLERANCE, f"frame {i}"
        if i == corrected_at:
            tracker.correct(frame, corrected)
            assert deviation(frame.probabilities, golden["corrected_probs"]) <= TOLERANCE
        elif i in held:
            tracker.hold(frame)
        elif i < frames - 1:
            tracker.memorize(frame)
        assert tracker.memory_tokens[0] == golden["work_memory_sizes"][i], f"frame {i}"
