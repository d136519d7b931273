# SPDX-License-Identifier: Apache-2.0
"""Composed clips: shapes, determinism, what a clip promises."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.compose import MIN_TARGET_PIXELS, ComposeConfig, Composer
from training.layers import CutOut, frame_indices
from training.material import (
    HELD_OUT_SEQUENCES,
    TRAINING_SEQUENCES,
    Material,
    MaterialError,
    blob_mask,
    choose_region,
    choose_thing,
    load_material,
    load_sequence,
)

EVERYTHING = ComposeConfig(
    size=96,
    frames=5,
    look_alike_share=1.0,
    occluder_share=1.0,
    swap_share=1.0,
    cousin_share=0.5,
    shadow_share=1.0,
    moving_light_share=1.0,
    bridge_share=0.5,
    smallest=0.3,
)


@pytest.mark.parametrize("objects", [1, 2, 3])
def test_a_clip_has_its_shape_and_every_target_on_the_first_frame(
    material: Material, objects: int
) -> None:
    clip = Composer(material, EVERYTHING).compose((3, 1), objects=objects)
    assert (clip.frames.shape, clip.frames.dtype) == ((5, 96, 96, 3), np.uint8)
    assert (clip.labels.shape, clip.labels.dtype) == ((5, 96, 96), np.uint8)
    for target in range(1, objects + 1):
        assert np.count_nonzero(clip.labels[0] == target) >= MIN_TARGET_PIXELS
    assert clip.labels.max() == objects


def test_a_seed_makes_the_same_clip_and_another_seed_another(material: Material) -> None:
    one = Composer(material, EVERYTHING).compose((7, 2), objects=2)
    same = Composer(material, EVERYTHING).compose((7, 2), objects=2)
    other = Composer(material, EVERYTHING).compose((7, 3), objects=2)
    np.testing.assert_array_equal(one.frames, same.frames)
    np.testing.assert_array_equal(one.labels, same.labels)
    assert not np.array_equal(one.labels, other.labels)


def test_targets_move(material: Material) -> None:
    composer = Composer(material, ComposeConfig(size=96, frames=4, smallest=0.3))
    moved = 0
    for seed in range(8):
        labels = composer.compose((seed,), objects=1).labels
        moved += not np.array_equal(labels[0], labels[-1])
    assert moved == 8


def test_a_clip_may_stand_still_on_the_way(material: Material) -> None:
    pausing = replace(EVERYTHING, frames=8, pause_share=1.0)
    for number in range(3):
        labels = Composer(material, pausing).compose((5, number), objects=1).labels
        unchanged = [np.array_equal(a, b) for a, b in itertools.pairwise(labels)]
        assert True in unchanged


def test_a_bridge_hides_its_target_in_some_clips(material: Material) -> None:
    composer = Composer(material, ComposeConfig(size=96, frames=8, bridge_share=1.0, smallest=0.2))
    clips = [composer.compose((seed,), objects=1) for seed in range(12)]
    areas = np.array([(clip.labels == 1).sum((1, 2)) for clip in clips])
    assert (areas.min(axis=1) < 0.2 * areas[:, 0]).sum() >= 4


def test_held_out_sequences_are_refused() -> None:
    assert not set(HELD_OUT_SEQUENCES) & set(TRAINING_SEQUENCES)
    with pytest.raises(MaterialError, match="held out"):
        load_material(None, sequences=("camel",))


def test_a_missing_sequence_is_named(tmp_path: Path) -> None:
    with pytest.raises(MaterialError, match="dog"):
        load_sequence(tmp_path, "dog")


def test_regions_and_shapes_are_masks() -> None:
    rng = np.random.default_rng(0)
    regions = np.zeros((60, 80), np.uint8)
    regions[10:40, 10:40] = 1
    regions[10:40, 40:70] = 2
    for _ in range(10):
        mask = choose_region(rng, regions)
        assert mask is not None
        assert set(np.unique(mask)) == {0, 255}
        assert 0 < np.count_nonzero(mask) <= 1800
    assert choose_region(rng, np.zeros((60, 80), np.uint8)) is None
    regions[:, :40] = 1  # now along half of the border
    chosen = [choose_region(rng, regions, border_share=0.3) for _ in range(10)]
    assert all(mask is not None and not mask[0].any() for mask in chosen)
    shape = blob_mask(rng, 64)
    assert shape.shape == (64, 64)
    assert set(np.unique(shape)) == {0, 255}


def test_a_thing_is_all_that_hangs_together_before_the_background() -> None:
    rng = np.random.default_rng(0)
    regions = np.zeros((60, 80), np.uint8)
    regions[10:25, 10:30] = 1  # a head
    regions[25:50, 10:30] = 2  # and what it wears
    regions[30:58, 60:75] = 3  # another thing
    regions[40:, 40:50] = 4  # reaches the border
    things = [choose_thing(rng, regions) for _ in range(20)]
    whole, other = np.isin(regions, (1, 2)), regions == 3
    drawn = {mask.tobytes() for mask in things if mask is not None}
    assert drawn == {np.where(thing, 255, 0).astype(np.uint8).tobytes() for thing in (whole, other)}
    assert choose_thing(rng, np.zeros((60, 80), np.uint8)) is None


def test_frame_numbers_stay_inside_and_run_one_way() -> None:
    rng = np.random.default_rng(1)
    for length, count in ((40, 8), (10, 8), (90, 3)):
        for _ in range(50):
            indices = frame_indices(rng, length, count)
            steps = np.diff(indices)
            assert len(indices) == count
            assert indices.min() >= 0
            assert indices.max() < length
            assert (steps > 0).all() or (steps < 0).all()


def test_a_cut_out_of_one_picture_serves_every_frame() -> None:
    picture = np.zeros((8, 6, 4), np.uint8)
    cut_out = CutOut([picture])
    assert cut_out.at(0) is picture
    assert cut_out.at(5) is picture
    assert cut_out.extent == 8
