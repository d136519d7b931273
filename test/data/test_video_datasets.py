# SPDX-License-Identifier: Apache-2.0
"""A video file as a dataset, with masks by the numbers of its frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lazyxmem_ros.data.datasets import open_dataset
from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.layouts.options import DatasetOptions
from lazyxmem_ros.images.files import write_video


def test_a_video_is_a_dataset(tmp_path: Path) -> None:
    frames = (np.full((64, 96, 3), 30 + 5 * index, np.uint8) for index in range(6))
    write_video(tmp_path / "walk.MP4", frames, rate=10)
    mask = np.zeros((64, 96), np.uint8)
    mask[:24, :24] = 255
    Image.fromarray(mask).save(tmp_path / "first.png")
    (sequence,) = open_dataset(
        tmp_path / "walk.MP4", DatasetOptions(first_mask=tmp_path / "first.png")
    )
    samples = list(sequence.samples())
    assert (sequence.name, len(sequence), sequence.has_truth) == ("walk", 6, False)
    assert [sorted(sample.given) for sample in samples] == [[1], [], [], [], [], []]
    assert samples[3].stamp == 300_000_000
    (tmp_path / "masks").mkdir()
    for index in (0, 2, 5):
        Image.fromarray(mask).save(tmp_path / "masks" / f"{index:05d}.png")
    options = DatasetOptions(masks=tmp_path / "masks")
    (sequence,) = open_dataset(tmp_path / "walk.MP4", options)
    assert sequence.has_truth
    truths = [sample.truth is not None for sample in sequence.samples()]
    assert truths == [True, False, True, False, False, True]
    Image.fromarray(mask).save(tmp_path / "masks" / "first.png")
    with pytest.raises(DatasetError, match=r"named by the number of their frame, .* not first"):
        open_dataset(tmp_path / "walk.MP4", options)


def video_with_masks(root: Path, *names: str) -> DatasetOptions:
    """A video of four frames in `root`, and masks of these names."""
    frames = [np.full((16, 24, 3), 60 * number, np.uint8) for number in range(4)]
    write_video(root / "walk.mp4", frames, rate=10)
    for name in names:
        mask = Image.new("L", (24, 16), 0)
        mask.paste(255, (4, 4, 12, 12))
        file = root / "masks" / name
        file.parent.mkdir(exist_ok=True)
        mask.save(file)
    return DatasetOptions(masks=root / "masks")


def test_two_masks_of_one_frame_of_a_video_are_refused(tmp_path: Path) -> None:
    options = video_with_masks(tmp_path, "cat_0000.png", "dog_0000.png", "cat_0001.png")
    with pytest.raises(DatasetError, match=r"cat_0000\.png and dog_0000\.png are both of frame 0"):
        open_dataset(tmp_path / "walk.mp4", options)


def test_masks_that_no_frame_of_a_video_has_are_named(tmp_path: Path) -> None:
    """They are numbered from 1, say."""
    options = video_with_masks(tmp_path, "1.png", "2.png", "3.png", "4.png")
    (sequence,) = open_dataset(tmp_path / "walk.mp4", options)
    samples = list(sequence.samples())
    faults = [fault for sample in samples for fault in sample.faults]
    assert faults == [f"{tmp_path / 'masks' / '4.png'}: no frame has this number (from 0 on)"]
    assert [sample.truth is not None for sample in samples] == [False, True, True, True]


def test_several_objects_after_a_black_and_white_map_are_not_made_one(tmp_path: Path) -> None:
    options = video_with_masks(tmp_path, "0.png", "1.png", "2.png")
    with Image.open(tmp_path / "masks" / "1.png") as mask:
        mask.paste(100, (14, 4, 22, 12))
        mask.save(tmp_path / "masks" / "1.png")
    (sequence,) = open_dataset(tmp_path / "walk.mp4", options)
    samples = list(sequence.samples())
    assert [sample.truth is not None for sample in samples] == [True, False, True, False]
    assert "it shows several objects, of values up to 255" in samples[1].faults[0]
