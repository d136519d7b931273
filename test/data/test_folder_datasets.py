# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import save_grey

from lazyxmem_ros.data.datasets import open_dataset
from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.layouts.folders import FolderSequence
from lazyxmem_ros.data.layouts.options import DatasetOptions, Layout
from lazyxmem_ros.images.drawing import object_ids_in

MakeTree = Callable[..., Path]
EVERY_FRAME = {index: (1, 2) for index in range(5)}


def only(path: Path, options: DatasetOptions | None = None) -> FolderSequence:
    (sequence,) = open_dataset(path, options or DatasetOptions())
    assert isinstance(sequence, FolderSequence)
    return sequence


def test_davis_2016_is_binary(make_tree: MakeTree) -> None:
    sequence = only(make_tree("cow", 5, EVERY_FRAME, binary=True))
    samples = list(sequence.samples())
    assert sequence.name == "cow"
    assert [sample.key for sample in samples] == [f"{index:05d}" for index in range(5)]
    assert set(np.unique(samples[0].truth)) == {0, 1}
    assert list(samples[0].given) == [1]
    assert samples[1].given == {}
    assert samples[1].stamp == round(1e9 / 24)


@pytest.mark.parametrize("plain", [True, False])
def test_several_objects_after_a_black_and_white_map_are_not_made_one(
    plain: bool, make_tree: MakeTree
) -> None:
    """The first mask shows an object of shade 255 alone, the others one of 120 as well."""
    root = make_tree("cows", 5, EVERY_FRAME)
    images, masks = (root / folder / "480p" / "cows" for folder in ("JPEGImages", "Annotations"))
    for index, file in enumerate(sorted(masks.iterdir())):
        labels = np.asarray(Image.open(file))
        shades = np.where(labels == 1, 255, 120 * (labels == 2) * (index > 0)).astype(np.uint8)
        Image.fromarray(shades).save(file)
    path = images if plain else root
    told = {"masks": masks} if plain else {}
    samples = list(only(path, DatasetOptions(**told)).samples())
    assert [sample.truth is None for sample in samples] == [False, True, True, True, True]
    [fault] = samples[3].faults
    assert "00003.png: it shows several objects, of values up to 255" in fault
    assert "--binary" in fault
    # Unless somebody says that they are one.
    samples = list(only(path, DatasetOptions(**told, binary=True)).samples())
    assert [object_ids_in(sample.truth) for sample in samples] == [[1]] * 5
    if not plain:
        samples = list(only(path, DatasetOptions(layout=Layout.DAVIS2016)).samples())
        assert [object_ids_in(sample.truth) for sample in samples] == [[1]] * 5


def test_davis_2017_is_indexed(make_tree: MakeTree) -> None:
    samples = list(only(make_tree("cows", 5, EVERY_FRAME)).samples())
    assert list(samples[0].given) == [1, 2]
    assert samples[0].image is not None
    assert samples[0].image.shape == (64, 96, 3)
    assert samples[0].image[samples[0].given[1]].mean(axis=0)[0] > 120  # red comes first


def test_lvos_objects_begin_later_and_masks_have_gaps(make_tree: MakeTree) -> None:
    root = make_tree("road", 6, {0: (1,), 2: (1, 2), 5: (1, 2)}, resolution=".", start=1)
    (root / "valid_meta.json").write_text("{}")
    sequence = only(root)
    assert sequence.has_truth
    samples = list(sequence.samples())
    assert [sorted(sample.given) for sample in samples] == [[1], [], [2], [], [], []]
    annotated = [sample.index for sample in samples if sample.truth is not None]
    assert annotated == [0, 2, 5]
    assert samples[1].stamp == round(1e9 / 6)


def test_lvos_masks_that_only_introduce_are_not_scored(make_tree: MakeTree) -> None:
    root = make_tree("road", 6, {0: (1,), 2: (2,)}, resolution=".")
    (root / "test_meta.json").write_text("{}")
    sequence = only(root)
    assert not sequence.has_truth
    samples = list(sequence.samples())
    assert [sorted(sample.given) for sample in samples] == [[1], [], [2], [], [], []]
    assert all(sample.truth is None for sample in samples)


@pytest.mark.parametrize("binary", [False, True])
def test_a_single_mask_is_no_ground_truth(binary: bool, make_tree: MakeTree) -> None:
    """As in the test set of DAVIS 2017, which has each sequence's first mask alone."""
    sequence = only(make_tree("rider", 4, {0: (1,)}, binary=binary))
    assert not sequence.has_truth
    samples = list(sequence.samples())
    assert list(samples[0].given) == [1]
    assert all(sample.truth is None for sample in samples)


def test_plain_folder_in_natural_order(tmp_path: Path) -> None:
    folder = tmp_path / "video"
    (folder / "frames").mkdir(parents=True)
    for number in (1, 2, 10):
        Image.fromarray(np.full((8, 9, 3), number, np.uint8)).save(folder / f"frames/f{number}.png")
    mask = np.zeros((8, 9), np.uint8)
    mask[2:5, 2:5] = 7
    Image.fromarray(mask).save(tmp_path / "first.png")
    sequence = only(folder, DatasetOptions(first_mask=tmp_path / "first.png", rate=10))
    samples = list(sequence.samples())
    assert [sample.key for sample in samples] == ["f1", "f2", "f10"]
    assert list(samples[0].given) == [7]
    assert not sequence.has_truth
    assert samples[2].stamp == 200_000_000


@pytest.mark.parametrize(("shown", "begun"), [((1, 2), [1, 2]), ((255, 255), [1]), ((7, 255), [7])])
def test_an_empty_first_mask_does_not_say_what_the_others_mean(
    shown: tuple[int, ...], begun: list[int], tmp_path: Path
) -> None:
    """Neither in a folder nor in a tree, whose first sequence may be empty altogether."""
    folder, tree = tmp_path / "video", tmp_path / "tree"
    for index in range(3):
        name = f"{index:05d}.png"
        later = shown if index else ()
        save_grey(folder / "frames" / name)
        save_grey(folder / "masks" / name, *later)
        for sequence in ("early", "late"):
            save_grey(tree / "JPEGImages" / sequence / name)
        save_grey(tree / "Annotations" / "early" / name)
        save_grey(tree / "Annotations" / "late" / name, *later)
    for sequence in (only(folder), open_dataset(tree)[1]):
        assert [sorted(sample.given) for sample in sequence.samples()] == [[], begun, []]


def test_faults_are_named_and_cost_one_frame(make_tree: MakeTree) -> None:
    root = make_tree("cow", 6, {index: (1,) for index in range(6)})
    images, masks = root / "JPEGImages/480p/cow", root / "Annotations/480p/cow"
    (images / "00001.jpg").unlink()
    (images / "00002.jpg").write_bytes(b"no picture")
    Image.fromarray(np.ones((10, 10), np.uint8)).save(masks / "00003.png")
    (masks / "00004.png").write_bytes((masks / "00005.png").read_bytes()[:40])
    samples = list(only(root).samples())
    said = [" ".join(sample.faults) for sample in samples]
    assert "frame 00001: the image is missing" in said[1]
    assert "00002.jpg: the image cannot be read" in said[2]
    assert "frame 00003: the mask is 10x10, the image 96x64" in said[3]
    assert "00004.png: the mask cannot be read" in said[4]
    assert said[0] == said[5] == ""
    assert [sample.index for sample in samples if sample.image is not None] == [0, 3, 4, 5]
    assert [sample.truth is not None for sample in samples[3:]] == [False, False, True]


def test_a_gap_in_the_numbers_is_a_missing_frame(make_tree: MakeTree) -> None:
    root = make_tree("cow", 20, {0: (1,)}, start=8)
    for number in (11, 12, 15):
        (root / f"JPEGImages/480p/cow/{number:05d}.jpg").unlink()
    samples = list(only(root).samples())
    assert [sample.key for sample in samples] == [f"{8 + index:05d}" for index in range(20)]
    missing = {sample.key: sample.faults for sample in samples if sample.image is None}
    assert missing == {
        key: [f"frame {key}: the image is missing"] for key in ("00011", "00012", "00015")
    }


@pytest.mark.parametrize(
    "numbers", [(0, 5, 10, 15, 20), (0, 1, 3, 4, 9, 11), (7, 9), (1, 2, 3, 4, 5, 6, 10**15)]
)
def test_other_ways_of_numbering_have_no_gaps(numbers: tuple[int, ...], tmp_path: Path) -> None:
    for number in numbers:
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f"frame{number}.png")
    keys = [sample.key for sample in only(tmp_path).samples()]
    assert keys == [f"frame{number}" for number in numbers]


def test_of_several_resolutions_none_is_guessed(make_tree: MakeTree) -> None:
    """480p is the usual one; without it there is none."""
    for resolution in ("360p", "1080p"):
        root = make_tree("cow", 3, {0: (1,)}, resolution=resolution)
    with pytest.raises(DatasetError, match="JPEGImages: has 360p and 1080p, but not 480p"):
        open_dataset(root)
    make_tree("cow", 3, {0: (1,)}, resolution="480p")
    assert [sequence.name for sequence in open_dataset(root)] == ["cow"]


def test_annotations_without_images_are_named(make_tree: MakeTree) -> None:
    make_tree("cow", 2, {0: (1,)})
    root = make_tree("dog", 2, {0: (1,)})
    shutil.rmtree(root / "JPEGImages/480p/dog")
    cow, dog = open_dataset(root)
    assert (cow.name, len(cow)) == ("cow", 2)
    with pytest.raises(DatasetError, match=r"JPEGImages/480p/dog: there is no such folder of im"):
        list(dog.samples())
