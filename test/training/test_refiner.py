# SPDX-License-Identifier: Apache-2.0
"""The refiner's training: broken masks, clicks, batches, one step that learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from training.compose import ComposeConfig, Composer
from training.degrade import break_mask, largest_error
from training.material import Material, load_material
from training.practice import recoloured, tracked, turned
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
    inputs, truths, areas = make_batch(CONFIG, material, 3)
    again, *_ = make_batch(CONFIG, material, 3)
    assert inputs.shape == (4, 8, 160, 160)
    assert truths.shape == (4, 160, 160)
    assert areas.shape == (4,)
    assert set(truths.unique().tolist()) <= {0.0, 1.0}
    torch.testing.assert_close(inputs, again, rtol=0, atol=0)


def test_in_practice_priors_are_the_trackers(material: Material) -> None:
    practising = replace(CONFIG, practice_from=3)
    inputs, truths, _ = make_batch(practising, material, 3)
    again, *_ = make_batch(practising, material, 3)
    before, *_ = make_batch(practising, material, 2)
    assert inputs.shape == (4, 8, 160, 160)
    assert truths.shape == (4, 160, 160)
    torch.testing.assert_close(inputs, again, rtol=0, atol=0)
    torch.testing.assert_close(before, make_batch(CONFIG, material, 2)[0], rtol=0, atol=0)


def test_the_tracker_begins_with_the_true_masks(material: Material) -> None:
    clip = Composer(material, ComposeConfig(size=128, frames=3)).compose((1, 2), objects=2)
    labels = tracked(clip, 2)
    assert [seen.shape for seen in labels] == [(128, 128)] * 3
    np.testing.assert_array_equal(labels[0], clip.labels[0])
    assert all(seen.max() <= 2 for seen in labels)


def test_pictures_and_masks_are_turned_alike_and_only_pictures_recoloured() -> None:
    rng = np.random.default_rng(0)
    mask = disc(30, 60, 12)[:80, :80]
    image = np.where(mask[..., None], 255, 40).astype(np.uint8).repeat(3, -1)
    seen = set()
    for _ in range(20):
        picture, same = turned(rng, image, mask)
        np.testing.assert_array_equal(picture[..., 0] > 100, same)
        seen.add(same.tobytes())
        other = recoloured(rng, image)
        assert (other.shape, other.dtype) == (image.shape, np.uint8)
    assert len(seen) >= 4


def test_the_second_cycle_begins_at_half_the_rate() -> None:
    trainer = Trainer(RefinerTraining(steps=40, warm_up=2, restarts=(20,)), torch.device("cpu"))
    rates = []
    for step in range(40):
        trainer.step = step
        rates.append(trainer.rate)
    assert max(rates[:20]) == pytest.approx(1e-3, rel=0.05)
    assert max(rates[20:]) == pytest.approx(0.5e-3, rel=0.05)
    assert rates[19] < 0.1 * max(rates)
    assert rates[39] < 0.1 * max(rates[20:])


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


def test_what_lies_outside_the_crop_counts_as_missed() -> None:
    half = torch.zeros(1, 4, 4, dtype=torch.bool)
    half[:, :2] = True
    assert iou(half, half).item() == 1
    assert iou(half, half, torch.tensor([16.0])).item() == 0.5
    assert iou(half, half, torch.tensor([7.9])).item() == 1
