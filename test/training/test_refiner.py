# SPDX-License-Identifier: Apache-2.0
"""The refiner's training: broken masks, clicks, batches, one step that learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.degrade import break_mask, largest_error
from training.material import Material, load_material
from training.train_refiner import RefinerTraining, Trainer, iou, make_batch

CONFIG = RefinerTraining(steps=20, batch=4, warm_up=1)


@pytest.fixture(scope="module")
def material() -> Material:
    return load_material(None)


def disc(x: int, y: int, radius: int) -> np.ndarray:
    ys, xs = np.mgrid[0:80, 0:100]
    return (xs - x) ** 2 + (ys - y) ** 2 <= radius**2


def test_the_click_goes_to_the_middle_of_the_largest_error() -> None:
    assert largest_error(disc(60, 40, 20), disc(60, 40, 20)) is None
    x, y, positive = largest_error(disc(60, 40, 20), np.zeros((80, 100), bool))  # type: ignore[misc]
    assert abs(x - 60) <= 2
    assert abs(y - 40) <= 2
    assert positive
    x, y, positive = largest_error(disc(20, 20, 4), disc(20, 20, 4) | disc(70, 50, 10))  # type: ignore[misc]
    assert abs(x - 70) <= 2
    assert abs(y - 50) <= 2
    assert not positive


def test_a_broken_mask_still_touches_the_object_nearly_always() -> None:
    rng = np.random.default_rng(0)
    truth = disc(50, 40, 18)
    empty = np.zeros_like(truth)
    broken = [break_mask(rng, truth, empty) for _ in range(60)]
    ious = np.array([(b & truth).sum() / (b | truth).sum() for b in broken])
    assert (ious > 0.1).mean() > 0.95
    assert ious.min() < 0.6
    assert ious.max() == 1.0


def test_a_mask_leaks_into_the_neighbour_or_is_stolen_by_it() -> None:
    rng = np.random.default_rng(0)
    truth, neighbour = disc(30, 40, 12), disc(75, 40, 12)
    broken = [break_mask(rng, truth, neighbour) for _ in range(80)]
    assert any((b == (truth | neighbour)).all() for b in broken)
    assert any((b == neighbour).all() for b in broken)


def test_a_batch_is_a_function_of_its_step(material: Material) -> None:
    inputs, truths = make_batch(CONFIG, material, 3)
    again, _ = make_batch(CONFIG, material, 3)
    assert inputs.shape == (4, 8, 160, 160)
    assert truths.shape == (4, 160, 160)
    assert set(truths.unique().tolist()) <= {0.0, 1.0}
    torch.testing.assert_close(inputs, again, rtol=0, atol=0)


def test_steps_on_one_batch_lower_its_loss(material: Material) -> None:
    torch.set_num_threads(1)
    trainer = Trainer(CONFIG, torch.device("cpu"))
    batch = make_batch(CONFIG, material, 0)
    losses = [trainer.train_step(*batch)[0] for _ in range(8)]
    assert losses[-1] < 0.9 * losses[0]


def test_iou_counts_rightly_empty_as_one() -> None:
    empty = torch.zeros(1, 4, 4, dtype=torch.bool)
    full = torch.ones(1, 4, 4, dtype=torch.bool)
    assert iou(empty, empty).item() == 1
    assert iou(empty, full).item() == 0
