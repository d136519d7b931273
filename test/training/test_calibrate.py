# SPDX-License-Identifier: Apache-2.0
"""The calibration: what is fitted to frames of known IoU, and the thresholds that suit them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from training.calibrate import LOW_ROWS, NAMES, VIEWS, WELL, View, fit, predicted, thresholds


def frames_of(sequence: str, count: int, seed: int) -> pd.DataFrame:
    """Frames with evidence at random."""
    values = np.random.default_rng(seed).normal(size=(count, len(NAMES)))
    return pd.DataFrame(values, columns=NAMES).assign(sequence=sequence)


def test_the_fit_finds_which_evidence_tells_the_iou() -> None:
    frames = frames_of("a", 800, 0)
    logit = 0.5 + frames["sharpness"] - 0.8 * frames["doubt"]
    frames["iou"] = 1 / (1 + np.exp(-logit))
    model = fit(frames)
    assert (predicted(model, frames) - frames["iou"]).abs().mean() < 0.06
    assert model.weight.sharpness > 0.5
    assert model.weight.doubt < -0.4
    assert abs(model.weight.likeness) < 0.05


def test_every_sequence_counts_the_same_however_long() -> None:
    short, long = frames_of("a", 50, 0).assign(iou=0.9), frames_of("b", 2000, 1).assign(iou=0.1)
    both = pd.concat([short, long], ignore_index=True)
    assert predicted(fit(both), both).mean() == pytest.approx(0.5, abs=0.05)


def test_thresholds_leave_alone_most_of_the_frames_on_which_all_is_well() -> None:
    rising = np.linspace(0, 1, 1001)
    well = pd.DataFrame(
        {"iou": WELL, "entropy": rising, "rate": 2 * rising, "predicted": 0.5 + 0.4 * rising}
    ).assign(view=VIEWS[0].name)
    other = well.assign(entropy=9.0, rate=9.0, predicted=0.0)
    lost, dark = other.assign(iou=WELL - 0.01), other.assign(view=VIEWS[2].name)
    assert thresholds(pd.concat([well, lost, dark])) == pytest.approx(
        {
            "hold_entropy": 0.95,
            "uncertain_entropy": 0.95,
            "pseudo_rate": 1.95,
            "operator_rate": 1.99,
            "operator_iou": 0.5,
            "hold_iou": 0.5,
        }
    )


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_image_and_mask_are_changed_alike(view: View) -> None:
    image = np.zeros((360, 640, 3), np.uint8)
    image[100:200, 50:250] = 200
    shown, mask = view.of(image, image[..., 0] > 0)
    assert mask is not None
    assert mask.shape == shown.shape[:2]
    assert shown.shape[0] in (360, LOW_ROWS, 648)
    assert shown.dtype == np.uint8
    threshold = 0.25 * int(shown.max())
    assert ((shown[..., 0] > threshold) != mask).mean() < 0.02
    share = mask.mean() / (image[..., 0] > 0).mean()
    assert share == pytest.approx(1 / 1.8**2 if view.margin else 1, rel=0.02)
