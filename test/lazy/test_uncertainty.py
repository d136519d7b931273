# SPDX-License-Identifier: Apache-2.0
"""Entropy and masked entropy against golden vectors and against plain NumPy."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lazyxmem_ros.lazy.uncertainty import (
    Uncertainty,
    dilate,
    disc_kernel,
    entropy_map,
    kernel_side,
    measure,
    winning_class,
)

GOLDEN = Path(__file__).parents[1] / "data" / "entropy.npz"
ROUNDING = 5.1e-5
"""The golden entropies are rounded to 4 decimals."""


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as data:
        return dict(data)


def plain_masked_entropy(probabilities: np.ndarray, kernel) -> list[tuple[float, np.ndarray]]:
    """The definition, written with NumPy and OpenCV."""
    classes = probabilities.shape[0]
    p = np.maximum(probabilities.astype(np.float64), 1e-300)
    entropy = -(p * np.log(p)).sum(0) / math.log(classes)
    results = []
    for object_id in range(1, classes):
        mask = (probabilities.argmax(0) == object_id).astype(np.uint8)
        area = int(mask.sum())
        near = cv2.dilate(mask, kernel(area)) if kernel(area).any() else mask
        masked = entropy * near
        results.append((masked.sum() / area if area else 0.0, masked))
    return results


def masked_map(seen: Uncertainty, position: int) -> np.ndarray:
    """The entropy on an object's dilated mask, 0 elsewhere, float [H, W]."""
    mask = seen.winner == position + 1
    near = dilate(mask, kernel_side(seen.objects[position].area))
    return (seen.entropy * near).numpy()


def random_probabilities(classes: int, size: tuple[int, int], seed: int) -> torch.Tensor:
    """Smooth blobs, so that masks have areas worth dilating."""
    generator = np.random.default_rng(seed)
    logits = generator.standard_normal((classes, *size)).astype(np.float32)
    logits = np.stack([cv2.GaussianBlur(channel, (0, 0), 9) for channel in logits])
    return torch.softmax(torch.from_numpy(logits) * 60, 0)


@pytest.mark.parametrize("index", [0, 1])
def test_entropy_map_is_the_golden_one(golden, index):
    ours = entropy_map(torch.from_numpy(golden[f"prob{index}"]))
    assert np.abs(ours.numpy() - golden[f"entropy{index}"]).max() < ROUNDING


@pytest.mark.parametrize("index", [0, 1])
def test_masked_entropy_is_the_golden_one(golden, index):
    result = measure(torch.from_numpy(golden[f"prob{index}"]))
    wanted = golden[f"masked_entropy{index}"]
    assert len(result.objects) == len(wanted)
    for position, item in enumerate(result.objects):
        masked = golden[f"masked_map{index}_{position + 1}"]
        assert np.abs(masked_map(result, position) - masked).max() < ROUNDING
        # Rounded pixels summed over the dilated mask and divided by the mask's area.
        tolerance = ROUNDING * np.count_nonzero(masked) / item.area
        assert item.entropy == pytest.approx(wanted[position], abs=tolerance)
        assert kernel_side(item.area) == golden[f"kernel_size{index}"][position]


@pytest.mark.parametrize("area", [0, 50, 400, 2500, 20000])
def test_kernel_is_the_golden_one(golden, area):
    wanted = golden[f"kernel_{area}"]
    assert kernel_side(area) == wanted.shape[0]
    assert np.array_equal(disc_kernel(kernel_side(area)), wanted)


@pytest.mark.parametrize("side", [4, 6, 8, 10, 12, 14, 22, 32, 46, 64])
def test_dilation_equals_opencv(side):
    generator = np.random.default_rng(side)
    for density in (0.0005, 0.01, 0.5):
        mask = (generator.random((71, 93)) < density).astype(np.uint8)
        mask[0, 5] = mask[-1, -1] = mask[40, 0] = 1  # the borders too
        wanted = cv2.dilate(mask, disc_kernel(side)) > 0
        assert np.array_equal(dilate(torch.from_numpy(mask > 0), side).numpy(), wanted)


def test_dilation_of_a_mask_smaller_than_the_kernel():
    mask = np.ones((3, 2), np.uint8)
    wanted = cv2.dilate(mask, disc_kernel(32)) > 0
    assert np.array_equal(dilate(torch.from_numpy(mask > 0), 32).numpy(), wanted)


@pytest.mark.parametrize(("classes", "size"), [(2, (120, 160)), (4, (97, 131)), (7, (64, 200))])
def test_all_objects_agree_with_plain_numpy(classes, size):
    probabilities = random_probabilities(classes, size, seed=classes)
    result = measure(probabilities)
    plain = plain_masked_entropy(probabilities.numpy(), lambda area: disc_kernel(kernel_side(area)))
    for position, (value, masked) in enumerate(plain):
        assert result.objects[position].entropy == pytest.approx(value, abs=1e-5)
        assert np.abs(masked_map(result, position) - masked).max() < 1e-5
        mask = probabilities.argmax(0).numpy() == position + 1
        box = result.objects[position].box
        assert result.objects[position].area == mask.sum()
        assert box is not None
        ys, xs = np.nonzero(mask)
        assert box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


def test_empty_mask_has_no_entropy_and_no_box():
    probabilities = torch.zeros(3, 20, 30)
    probabilities[0] = 0.6
    probabilities[1] = 0.4
    item = measure(probabilities).objects[1]
    assert (item.area, item.box, item.entropy) == (0, None, 0.0)


def test_no_objects_is_certain():
    result = measure(torch.ones(1, 12, 16))
    assert result.objects == ()
    assert not result.entropy.any()


@pytest.mark.parametrize("classes", [1, 2, 5, 256, 257])
def test_winning_class_is_the_first_arg_max(classes):
    generator = np.random.default_rng(classes)
    values = generator.integers(0, 4, (classes, 6, 7)).astype(np.float32)  # with ties
    values[:, 2, 3] = math.nan  # a softmax leaves no class of a pixel out
    winner = winning_class(torch.from_numpy(values))
    assert winner.dtype is (torch.uint8 if classes <= 256 else torch.int16)
    assert np.array_equal(winner.numpy(), values.argmax(0))
    assert winner[2, 3] == 0


def test_extremes():
    uniform = torch.full((3, 8, 8), 1 / 3)
    assert torch.allclose(entropy_map(uniform), torch.ones(8, 8), atol=1e-6)
    certain = torch.zeros(3, 8, 8)
    certain[2] = 1.0
    assert torch.equal(entropy_map(certain), torch.zeros(8, 8))


def test_a_small_object_is_not_dilated():
    probabilities = torch.full((2, 40, 40), 0.5)
    probabilities[1, 10:20, 10:20] = 0.6
    probabilities[0] = 1 - probabilities[1]
    (item,) = measure(probabilities - torch.tensor([-1e-3, 1e-3])[:, None, None]).objects
    inside = -(0.599 * math.log(0.599) + 0.401 * math.log(0.401)) / math.log(2)
    assert item.entropy == pytest.approx(inside, abs=1e-5)


def test_the_input_is_left_alone():
    probabilities = random_probabilities(3, (50, 60), seed=1)
    before = probabilities.clone()
    measure(probabilities)
    assert torch.equal(probabilities, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_agrees():
    probabilities = random_probabilities(5, (200, 300), seed=3)
    here, there = measure(probabilities), measure(probabilities.cuda())
    for a, b in zip(here.objects, there.objects, strict=True):
        assert (a.area, a.box) == (b.area, b.box)
        assert a.entropy == pytest.approx(b.entropy, abs=1e-4)
