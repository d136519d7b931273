# SPDX-License-Identifier: Apache-2.0
"""The palette, overlays and videos."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from full_disk import files_of_at_most
from numpy.typing import NDArray

from lazyxmem_ros.data.videos import VideoFile
from lazyxmem_ros.images import ImageError
from lazyxmem_ros.images.drawing import davis_palette, object_colour, overlay
from lazyxmem_ros.images.files import VideoError, WriteError, save_image, write_video, write_whole


def test_palette_is_that_of_davis() -> None:
    palette = davis_palette()
    np.testing.assert_array_equal(
        palette[:6],
        [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128]],
    )
    np.testing.assert_array_equal(palette[8:10], [[64, 0, 0], [192, 0, 0]])
    np.testing.assert_array_equal(palette[255], [224, 224, 192])


def test_overlay_tints_the_object_alone() -> None:
    image = np.full((40, 60, 3), 100, np.uint8)
    labels = np.zeros((40, 60), np.uint16)
    labels[10:30, 20:40] = 3
    shown = overlay(image, labels)
    assert (shown[0:5] == 100).all()
    assert (shown[20, 30] != 100).any()
    assert (image == 100).all(), "the image itself is not drawn into"
    colours = {object_colour(number) for number in range(1, 9)}
    assert len(colours) == 8


def test_video_can_be_read_again(tmp_path: Path) -> None:
    frames = [np.full((48, 64, 3), 25 * number, np.uint8) for number in range(8)]
    path = tmp_path / "video" / "grey.mp4"
    assert write_video(path, iter(frames), rate=10) == 8
    reader = imageio_ffmpeg.read_frames(str(path))
    facts = next(reader)
    assert facts["fps"] == 10
    assert facts["codec"] == "h264"
    read = [np.frombuffer(frame, np.uint8).mean() for frame in reader]
    np.testing.assert_allclose(read, [25 * number for number in range(8)], atol=3)
    with pytest.raises(ImageError, match="at least one frame"):
        write_video(tmp_path / "empty.mp4", iter([]), rate=10)


def test_a_video_of_an_odd_size_gets_its_last_row_and_column_twice(tmp_path: Path) -> None:
    frame = np.zeros((3, 5, 3), np.uint8)
    write_video(tmp_path / "odd.mp4", [frame, frame], rate=10)
    facts = next(imageio_ffmpeg.read_frames(str(tmp_path / "odd.mp4")))
    assert facts["size"] == (6, 4)


def test_two_threads_write_into_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each its own file, however long the other takes."""
    both_have_written = threading.Barrier(2, timeout=20)
    written = Path.write_bytes

    def waiting(self: Path, data: bytes) -> int:
        size = written(self, data)
        both_have_written.wait()
        return size

    monkeypatch.setattr(Path, "write_bytes", waiting)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda name: write_whole(tmp_path / name, name.encode()), "ab"))
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"a": "a", "b": "b"}


def test_a_frame_of_another_size_is_refused_and_those_before_it_are_kept(tmp_path: Path) -> None:
    frames = [np.zeros((16, 16, 3), np.uint8)] * 3
    with pytest.raises(VideoError, match="a frame is of 24x16 pixels, the first one of 16x16"):
        write_video(tmp_path / "a.mp4", [*frames, np.zeros((16, 24, 3), np.uint8)], rate=10)
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]
    assert len(list(VideoFile.open(tmp_path / "a.mp4"))) == 3


def test_a_video_that_could_not_be_encoded_hides_no_other_fault(tmp_path: Path) -> None:
    """Where the disk is full both fail."""

    def frames() -> Iterator[NDArray[np.uint8]]:
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        for _ in range(3):
            yield noise
        raise WriteError("00003.png cannot be written: No space left on device")

    with files_of_at_most(2000), pytest.raises(WriteError, match=r"00003\.png"):
        write_video(tmp_path / "a.mp4", frames(), rate=10)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("moment", ["communicate", "replace"])
def test_an_interrupted_video_is_there_whole_or_not_at_all(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    owner = subprocess.Popen if moment == "communicate" else Path
    monkeypatch.setattr(owner, moment, interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", [np.zeros((16, 16, 3), np.uint8)] * 3, rate=10)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_named_and_leaves_no_broken_file(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    with files_of_at_most(2000):
        with pytest.raises(ImageError, match=r"a\.mp4: the video could not be encoded"):
            write_video(tmp_path / "a.mp4", [noise] * 3, rate=10)
        with pytest.raises(WriteError, match=r"a\.png cannot be written: File too large"):
            write_whole(tmp_path / "a.png", noise.tobytes())
        with pytest.raises(WriteError, match=r"a\.jpg cannot be written: File too large"):
            save_image(tmp_path / "a.jpg", noise)
    assert not list(tmp_path.iterdir())
