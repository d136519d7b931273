# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from lazyxmem_ros.evaluation import pictures
from lazyxmem_ros.evaluation.errors import EvaluationError


def test_palette_is_that_of_davis() -> None:
    palette = pictures.davis_palette()
    np.testing.assert_array_equal(
        palette[:6],
        [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128]],
    )
    np.testing.assert_array_equal(palette[8:10], [[64, 0, 0], [192, 0, 0]])
    np.testing.assert_array_equal(palette[255], [224, 224, 192])


def test_indexed_png_round_trip(tmp_path: Path) -> None:
    labels = np.array([[0, 1], [2, 255]], np.uint16)
    pictures.save_indexed_png(tmp_path / "deep" / "mask.png", labels)
    with Image.open(tmp_path / "deep" / "mask.png") as mask:
        assert mask.mode == "P"
        np.testing.assert_array_equal(np.asarray(mask), labels)
    with pytest.raises(EvaluationError, match="object id 256 does not fit"):
        pictures.save_indexed_png(tmp_path / "mask.png", labels + 1)


def test_overlay_tints_the_object_alone() -> None:
    image = np.full((40, 60, 3), 100, np.uint8)
    labels = np.zeros((40, 60), np.uint16)
    labels[10:30, 20:40] = 3
    shown = pictures.overlay(image, labels)
    assert (shown[0:5] == 100).all()
    assert (shown[20, 30] != 100).any()
    assert (image == 100).all(), "the image itself is not drawn into"
    colours = {pictures.object_colour(number) for number in range(1, 9)}
    assert len(colours) == 8


def test_contact_sheet_holds_every_picture() -> None:
    tiles = [np.full((30, 40, 3), 20 * number, np.uint8) for number in range(5)]
    sheet = pictures.contact_sheet(tiles, columns=3, width=40)
    assert sheet.shape == (2 * 34 + 4, 3 * 44 + 4, 3)
    for number in range(5):
        row, column = divmod(number, 3)
        assert (sheet[4 + 34 * row + 15, 4 + 44 * column + 20] == 20 * number).all()
    with pytest.raises(EvaluationError, match="at least one picture"):
        pictures.contact_sheet([], columns=3, width=40)


def test_video_can_be_read_again(tmp_path: Path) -> None:
    frames = [np.full((48, 64, 3), 25 * number, np.uint8) for number in range(8)]
    path = tmp_path / "video" / "grey.mp4"
    assert pictures.write_video(path, iter(frames), rate=10) == 8
    reader = imageio_ffmpeg.read_frames(str(path))
    facts = next(reader)
    assert facts["fps"] == 10
    assert facts["codec"] == "h264"
    read = [np.frombuffer(frame, np.uint8).mean() for frame in reader]
    np.testing.assert_allclose(read, [25 * number for number in range(8)], atol=3)
    with pytest.raises(EvaluationError, match="at least one frame"):
        pictures.write_video(tmp_path / "empty.mp4", iter([]), rate=10)
