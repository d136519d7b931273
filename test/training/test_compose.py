# SPDX-License-Identifier: Apache-2.0
"""Composed clips: shapes, determinism, what a clip promises."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from training.compose import MIN_TARGET_PIXELS, ComposeConfig, Composer
from training.layers import LONGEST_GAP, CutOut, frame_indices, with_twin
from training.material import (
    DAVIS_TRAIN,
    TRAINING_SEQUENCES,
    TUNING_SEQUENCES,
    Material,
    MaterialError,
    blob_mask,
    choose_region,
    choose_thing,
    load_material,
    load_sequence,
    thin_mask,
)
from training.measure import trial_material

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


BEAR_FRAMES, BEAR_SIDE = 30, 20


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A square that crosses a sequence, and a photograph of each kind."""
    davis = tmp_path / DAVIS_TRAIN
    for kind in ("JPEGImages", "Annotations"):
        (davis / kind / "360p" / "bear").mkdir(parents=True)
    rng = np.random.default_rng(0)
    ground = cv2.resize(rng.integers(0, 255, (9, 16, 3), np.uint8), (160, 90))
    for index in range(BEAR_FRAMES):
        image, mask = ground.copy(), np.zeros((90, 160), np.uint8)
        there = np.s_[30 : 30 + BEAR_SIDE, 4 * index : 4 * index + BEAR_SIDE]
        image[there], mask[there] = (20, 60, 200), 255
        cv2.imwrite(str(davis / f"JPEGImages/360p/bear/{index:05d}.jpg"), image)
        cv2.imwrite(str(davis / f"Annotations/360p/bear/{index:05d}.png"), mask)
    for folder, shape in (("bsds500", (90, 120)), ("clothing", (480, 320))):
        for kind in ("images", "regions"):
            (tmp_path / folder / kind).mkdir(parents=True)
        image = cv2.resize(ground, shape[::-1])
        regions = np.zeros(shape, np.uint8)
        regions[20:60, 30:70] = 7
        cv2.imwrite(str(tmp_path / folder / "images" / "1.jpg"), image)
        cv2.imwrite(str(tmp_path / folder / "regions" / "1.png"), regions)
    return tmp_path


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


VALIDATION_SEQUENCES = (
    *("blackswan", "bmx-trees", "breakdance", "camel", "car-roundabout", "car-shadow", "cows"),
    *("dance-twirl", "dog", "drift-chicane", "drift-straight", "goat", "horsejump-high"),
    *("kite-surf", "libby", "motocross-jump", "paragliding-launch", "parkour", "scooter-black"),
    "soapbox",
)
"""DAVIS 2016's."""


@pytest.mark.parametrize("name", [*VALIDATION_SEQUENCES, *TUNING_SEQUENCES])
def test_what_is_measured_on_is_refused(name: str) -> None:
    assert name not in TRAINING_SEQUENCES
    with pytest.raises(MaterialError, match=f"'{name}'.* never trained on"):
        load_material(None, sequences=(TRAINING_SEQUENCES[0], name))


def test_a_missing_sequence_is_named(data: Path) -> None:
    with pytest.raises(MaterialError, match=r"there is no .*JPEGImages/360p/hike"):
        load_sequence(data / DAVIS_TRAIN, "hike")
    (data / DAVIS_TRAIN / "Annotations/360p/bear/00003.png").unlink()
    with pytest.raises(MaterialError, match=r"'bear' is incomplete.*00003\.png"):
        load_sequence(data / DAVIS_TRAIN, "bear")


def test_material_is_read_as_its_folders_hold_it(data: Path, material: Material) -> None:
    real = load_material(data, sequences=("bear",))
    (bear,) = real.sequences
    assert len(bear) == BEAR_FRAMES
    picture = bear.picture(4)
    assert picture.shape == (90, 160, 4)
    assert set(np.unique(picture[..., 3])) == {0, 255}
    assert np.count_nonzero(picture[..., 3]) == BEAR_SIDE**2
    inside = picture[picture[..., 3] > 0][:, :3].mean(0)
    np.testing.assert_allclose(inside, (200, 60, 20), atol=12)  # in the order red, green, blue
    assert len(real.photographs) == len(material.photographs) + 2
    upright = real.with_regions[-1]
    assert upright.image.shape == (480, 320, 3)
    assert upright.regions is not None
    assert upright.regions.shape == (480, 320)
    assert set(np.unique(upright.regions)) == {0, 7}


@pytest.mark.parametrize(
    ("regions", "fault"),
    [
        (np.full((480, 320), 300, np.uint16), r"cannot read .*1\.png as an 8-bit"),
        (np.full((240, 320), 7, np.uint8), r"1\.png has 240 rows of 320 pixels, .* 480 of 320"),
    ],
)
def test_regions_that_are_not_of_their_photograph_are_refused(
    tmp_path: Path, regions: np.ndarray, fault: str
) -> None:
    """Numbers above 255 would wrap round, and regions of another size fit no picture."""
    for folder, name, pixels in (
        ("images", "1.jpg", np.zeros((480, 320, 3), np.uint8)),
        ("regions", "1.png", regions),
    ):
        (tmp_path / "bsds500" / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "bsds500" / folder / name), pixels)
    with pytest.raises(MaterialError, match=fault):
        load_material(tmp_path, sequences=())


def test_trials_of_other_material_say_so(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trial_material(data).with_regions
    assert "without" not in capsys.readouterr().err
    assert not trial_material(tmp_path / "nowhere").with_regions
    assert "nowhere/bsds500 other clips are generated than" in capsys.readouterr().err


def test_the_view_of_a_real_clip_may_follow_its_object(data: Path) -> None:
    real = load_material(data, sequences=("bear",))

    def seen(**settings: float) -> NDArray[np.float64]:
        config = ComposeConfig(size=96, frames=6, real_share=1.0, hiding_share=0, **settings)
        clips = [Composer(real, config).compose((1, i), objects=1) for i in range(8)]
        return np.array([(clip.labels == 1).mean((1, 2)) for clip in clips])

    followed, left = seen(follow_share=1.0), seen()
    assert (followed[:, -1] > 0).mean() >= (left[:, -1] > 0).mean()
    assert followed.mean() > 1.5 * left.mean()


def test_a_target_may_leave_and_come_back_elsewhere(material: Material) -> None:
    config = ComposeConfig(
        size=96, frames=8, absence_share=1.0, hiding_share=0, occluder_share=0, smallest=0.3
    )
    clips = [Composer(material, config).compose((2, i), objects=1) for i in range(6)]
    for clip in clips:
        areas = (clip.labels == 1).sum((1, 2))
        assert (areas == 0).any()
    returned = [clip for clip in clips if (clip.labels[-1] == 1).any()]
    assert len(returned) >= 4
    moved = [_middle(clip.labels[-1]) - _middle(clip.labels[0]) for clip in returned]
    assert np.mean([np.linalg.norm(way) for way in moved]) > 12


def test_a_clip_may_cut_to_another_scene_and_back(material: Material) -> None:
    plain = ComposeConfig(size=96, frames=8, hiding_share=0, smallest=0.3)
    found = 0
    for number in range(6):
        clip = Composer(material, replace(plain, cut_share=1.0)).compose((9, number), objects=1)
        away = np.flatnonzero((clip.labels == 1).sum((1, 2)) == 0)
        assert len(away)
        assert (np.diff(away) == 1).all()
        jumps = np.abs(np.diff(clip.frames.astype(float), axis=0)).mean((1, 2, 3))
        found += jumps[away[0] - 1] > 2 * np.median(jumps)
    assert found >= 5


def test_thin_shapes_are_masks_and_thin() -> None:
    rng = np.random.default_rng(0)
    for _ in range(10):
        shape = thin_mask(rng, 64)
        assert set(np.unique(shape)) == {0, 255}
        depth = cv2.distanceTransform(np.pad(shape, 1), cv2.DIST_L2, 3).max()
        assert 1 <= depth <= 16
        assert np.count_nonzero(shape) < 0.5 * shape.size
    thin = ComposeConfig(size=96, frames=3, thin_share=1.0, in_place_share=0, look_alike_share=0)
    clip = Composer(load_material(None), thin).compose((0,), objects=1)
    target = (clip.labels[0] == 1).astype(np.uint8)
    assert cv2.distanceTransform(target, cv2.DIST_L2, 3).max() < 10


def test_a_twin_of_a_real_object_crosses_it_and_is_not_part_of_it() -> None:
    side = 20
    frames = []
    for t in range(6):
        frame = np.zeros((120, 160, 4), np.uint8)
        frame[50 : 50 + side, 60 + 2 * t : 60 + 2 * t + side] = (200, 40, 20, 255)
        frames.append(frame)
    hidden = 0
    for seed in range(12):
        crossed = with_twin(np.random.default_rng(seed), frames)
        assert np.array_equal(crossed[0][..., 3], frames[0][..., 3]), "shown whole at first"
        for before, after in zip(frames, crossed, strict=True):
            left = after[..., 3] > 0
            assert not np.any(left & (before[..., 3] == 0)), "the twin is not the object"
            hidden += bool(np.count_nonzero(left) < side * side)
        reds = [np.count_nonzero(frame[..., 0] > 150) for frame in crossed]
        assert max(reds) > 1.5 * side * side, "there are two of them"
    assert hidden > 6, "in front of it on some frames"


def test_twins_come_to_real_objects_only_where_they_are_asked_for(data: Path) -> None:
    material = load_material(data, sequences=("bear",))
    config = ComposeConfig(size=96, frames=5, real_share=1.0, look_alike_share=0)
    alone = Composer(material, config).compose((1,), objects=1)
    again = Composer(material, replace(config, real_twin_share=0.0)).compose((1,), objects=1)
    assert np.array_equal(alone.frames, again.frames)
    crossed = Composer(material, replace(config, real_twin_share=1.0)).compose((1,), objects=1)
    assert not np.array_equal(alone.frames, crossed.frames)


def _middle(labels: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.argwhere(labels == 1).mean(0)


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
    widest = 0
    for length, count in ((40, 8), (10, 8), (90, 3)):
        for _ in range(50):
            indices = frame_indices(rng, length, count)
            steps = np.diff(indices)
            assert len(indices) == count
            assert indices.min() >= 0
            assert indices.max() < length
            assert (steps > 0).all() or (steps < 0).all()
            widest = max(widest, int(np.abs(steps).max()))
    assert widest == LONGEST_GAP


def test_a_cut_out_of_one_picture_serves_every_frame() -> None:
    picture = np.zeros((8, 6, 4), np.uint8)
    cut_out = CutOut([picture])
    assert cut_out.at(0) is picture
    assert cut_out.at(5) is picture
    assert cut_out.extent == 8
