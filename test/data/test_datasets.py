# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from trees import save_grey

from lazyxmem_ros.data.datasets import open_dataset
from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.layouts.options import DatasetOptions, Layout
from lazyxmem_ros.images.files import write_video

MakeTree = Callable[..., Path]
EVERY_FRAME = {index: (1, 2) for index in range(5)}


@pytest.mark.parametrize("kind", ["tree", "folder", "video"])
def test_masks_of_one_new_object_each_are_not_scored(
    kind: str, make_tree: MakeTree, tmp_path: Path
) -> None:
    """Nobody has said that the others are gone."""
    for seen_again, known in (((1, 2), True), ((2,), False)):
        place = tmp_path / str(known)
        root = make_tree(f"road{known}", 6, {0: (1,), 3: seen_again})
        images, masks = (root / f / "480p" / f"road{known}" for f in ("JPEGImages", "Annotations"))
        options = DatasetOptions(sequences=(f"road{known}",) if kind == "tree" else ())
        if kind == "folder":
            root, options = images, DatasetOptions(masks=masks)
        elif kind == "video":
            frames = [np.array(Image.open(file)) for file in sorted(images.iterdir())]
            root, options = place / "road.mp4", DatasetOptions(masks=masks)
            write_video(root, frames, rate=10)
        (sequence,) = open_dataset(root, options)
        assert sequence.has_truth is known
        samples = list(sequence.samples())
        assert [sorted(sample.given) for sample in samples] == [[1], [], [], [2], [], []]
        assert [sample.truth is not None for sample in samples].count(True) == 2 * known


@pytest.mark.parametrize(
    ("layout", "option"),
    [
        (Layout.DAVIS2016, {"masks": "."}),
        (Layout.DAVIS2017, {"first_mask": "first.png"}),
        (Layout.LVOS, {"truth_topic": "/truth"}),
        (Layout.FOLDER, {"image_topic": "/camera"}),
        (Layout.BAG, {"rate": 10.0}),
        (Layout.SCENE, {"rate": 10.0}),
        (Layout.SCENE, {"first_mask": "first.png"}),
    ],
)
def test_what_says_nothing_about_a_layout_is_refused(
    layout: Layout, option: dict[str, Any], tmp_path: Path
) -> None:
    save_grey(tmp_path / "first.png", 7)
    given = {n: tmp_path / v if "mask" in n else v for n, v in option.items()}
    (name,) = option
    with pytest.raises(
        DatasetError, match=f"--{name.replace('_', '-')} .*{layout.value}.*leave it"
    ):
        open_dataset(tmp_path, DatasetOptions(layout=layout, **given))


@pytest.mark.parametrize("kind", ["folder", "video"])
def test_a_first_mask_that_changes_nothing_is_refused(kind: str, tmp_path: Path) -> None:
    """The frame has a mask among the others."""
    walk = tmp_path / "walk"
    for number in range(3):
        save_grey(walk / "frames" / f"{number}.png")
        if number:
            save_grey(walk / "masks" / f"{number}.png", 7)
    save_grey(tmp_path / "first.png", 3)
    path, masks = walk, None
    if kind == "video":
        path, masks = tmp_path / "walk.mp4", walk / "masks"
        write_video(path, [np.zeros((16, 16, 3), np.uint8)] * 3, rate=10)
    options = DatasetOptions(masks=masks, first_mask=tmp_path / "first.png")
    open_dataset(path, options)
    save_grey(walk / "masks" / "0.png", 7)
    with pytest.raises(
        DatasetError, match=r"the first frame has .*0\.png .*leave out --first-mask"
    ):
        open_dataset(path, options)
    open_dataset(path, replace(options, first_mask=walk / "masks" / "0.png"))


def test_a_sequence_is_played_there_and_back(make_tree: MakeTree) -> None:
    root = make_tree("cow", 4, EVERY_FRAME)
    (whole,) = open_dataset(root)
    (long,) = open_dataset(root, DatasetOptions(passes=3))
    once, samples = list(whole.samples()), list(long.samples())
    assert long.name == whole.name
    assert len(samples) == len(long) == 10
    assert [int(sample.key[:5]) for sample in samples] == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3]
    assert len({sample.key for sample in samples}) == 10
    assert [sample.index for sample in samples] == list(range(10))
    gaps = np.diff([sample.stamp for sample in samples])
    np.testing.assert_allclose(gaps, once[1].stamp, atol=1)
    assert [sorted(sample.given) for sample in samples] == [[1, 2], *[[]] * 9]
    np.testing.assert_array_equal(samples[4].image, once[2].image)
    np.testing.assert_array_equal(samples[4].truth, once[2].truth)
    with pytest.raises(DatasetError, match="at least once"):
        open_dataset(root, DatasetOptions(passes=0))


def test_names_and_paths_are_checked(make_tree: MakeTree, tmp_path: Path) -> None:
    root = make_tree("cow", 2, {0: (1,)})
    with pytest.raises(DatasetError, match="no sequence horse; it has cow"):
        open_dataset(root, DatasetOptions(sequences=("horse",)))
    with pytest.raises(DatasetError, match="no such file or folder"):
        open_dataset(tmp_path / "nowhere")
    (tmp_path / "half" / "JPEGImages" / "cow").mkdir(parents=True)
    with pytest.raises(DatasetError, match="Annotations: this folder of the layout is missing"):
        open_dataset(tmp_path / "half", DatasetOptions(layout=Layout.DAVIS2017))
    with pytest.raises(DatasetError, match="nowhere: there is no such folder of label maps"):
        open_dataset(root, DatasetOptions(masks=tmp_path / "nowhere"))
    with pytest.raises(DatasetError, match=r"none\.png: there is no such mask"):
        open_dataset(root, DatasetOptions(first_mask=tmp_path / "none.png"))


def test_scene_by_its_name() -> None:
    (sequence,) = open_dataset(Path("scene"))
    assert (sequence.name, len(sequence)) == ("pond", 150)


def test_a_sequence_whose_name_is_no_text_is_refused(make_tree: MakeTree, tmp_path: Path) -> None:
    """Before anything runs: tables and report could not be written."""
    name = os.fsdecode(b"caf\xe9")
    make_tree("walk", 2, {0: (1,)})
    root = make_tree(name, 2, {0: (1,)})
    write_video(tmp_path / f"{name}.mp4", [np.zeros((16, 24, 3), np.uint8)] * 2, rate=10)
    for path in (root, tmp_path / f"{name}.mp4"):
        with pytest.raises(DatasetError, match=r"'caf\\udce9' is not in UTF-8.*rename it"):
            open_dataset(path)
    (sequence,) = open_dataset(root, DatasetOptions(sequences=("walk",)))
    assert sequence.name == "walk"
