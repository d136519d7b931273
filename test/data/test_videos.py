# SPDX-License-Identifier: Apache-2.0
"""Video files as players show them: turned, in time, whole or named as cut short."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest

from lazyxmem_ros.data.datasets import open_dataset
from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.layouts.options import DatasetOptions
from lazyxmem_ros.data.samples import VideoSequence
from lazyxmem_ros.data.videos import VideoFile
from lazyxmem_ros.images.files import write_video
from lazyxmem_ros.track import Video, stop


def corner_frame(index: int) -> np.ndarray:
    """RGB [64, 96, 3] with a bright corner and, to tell frames apart, a grey of its own."""
    frame = np.full((64, 96, 3), 30 + 5 * index, np.uint8)
    frame[:24, :24] = (250, 40, 40)
    return frame


def ffmpeg(*arguments: str) -> None:
    program = imageio_ffmpeg.get_ffmpeg_exe()
    command = [program, "-v", "error", "-y", *arguments]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def expected_frames(path: Path, folder: Path) -> list[np.ndarray]:
    """As FFmpeg shows them when it writes pictures."""
    ffmpeg("-i", str(path), str(folder / "%d.png"))
    files = sorted(folder.glob("*.png"), key=lambda file: int(file.stem))
    return [cv2.imread(str(file))[..., ::-1] for file in files]


def turned_video(folder: Path, suffix: str, *how: str) -> Path:
    write_video(folder / "plain.mp4", (corner_frame(index) for index in range(5)), rate=10)
    turned = folder / f"turned{suffix}"
    ffmpeg(*how, "-i", str(folder / "plain.mp4"), "-c", "copy", str(turned))
    return turned


@pytest.mark.parametrize("mirror", [(), ("-display_hflip",), ("-display_vflip",)])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_the_display_matrix_turns_frames_as_players_do(
    suffix: str, degrees: int, mirror: tuple[str, ...], tmp_path: Path
) -> None:
    turned = turned_video(tmp_path, suffix, "-display_rotation", str(degrees), *mirror)
    frames = list(VideoFile.open(turned))
    assert len(frames) == 5
    for frame, expected in zip(frames, expected_frames(turned, tmp_path), strict=True):
        assert frame.shape == expected.shape
        assert np.abs(frame.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("degrees", [180.0, float("nan"), float("inf")])
def test_what_is_attached_to_matroska_turns_nothing(degrees: float, tmp_path: Path) -> None:
    """Though it holds the bytes of a turn, as a cover may by chance."""
    cover = tmp_path / "cover.bin"
    cover.write_bytes(b"\x76\x73\x84" + struct.pack(">f", degrees))
    attached = ("-attach", str(cover), "-metadata:s:t", "mimetype=application/octet-stream")
    path = tmp_path / "covered.mkv"
    write_video(tmp_path / "plain.mp4", (corner_frame(index) for index in range(3)), rate=10)
    ffmpeg("-i", str(tmp_path / "plain.mp4"), "-c", "copy", *attached, str(path))
    assert cover.read_bytes() in path.read_bytes()
    images = [list(VideoFile.open(one)) for one in (path, tmp_path / "plain.mp4")]
    np.testing.assert_array_equal(*images)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_matroska_turns_as_players_do_and_is_refused_where_it_mirrors(
    degrees: int, tmp_path: Path
) -> None:
    turned = turned_video(tmp_path, ".mkv", "-display_rotation", str(degrees))
    for frame, expected in zip(
        VideoFile.open(turned), expected_frames(turned, tmp_path), strict=True
    ):
        assert frame.shape == expected.shape
        assert np.abs(frame.astype(int) - expected).mean() < 4
    turned = turned_video(tmp_path, ".mkv", "-display_rotation", str(degrees), "-display_hflip")
    with pytest.raises(DatasetError, match=r"turned\.mkv: its frames are to be mirrored"):
        VideoFile.open(turned)


def test_another_angle_is_refused(tmp_path: Path) -> None:
    turned = turned_video(tmp_path, ".mp4", "-display_rotation", "30")
    with pytest.raises(DatasetError, match=r"turned\.mp4: its frames .* by no quarter turn"):
        VideoFile.open(turned)


def test_a_colon_in_a_name_begins_no_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(Path("12:30.mp4"), (corner_frame(index) for index in range(3)), rate=10)
    assert len(list(VideoFile.open(Path("12:30.mp4")))) == 3


def cut_video(path: Path, frames: int = 60) -> Path:
    noise = np.random.default_rng(0)
    pictures = (noise.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in range(frames))
    write_video(path, pictures, rate=10)
    data = path.read_bytes()
    path.write_bytes(data[: int(0.6 * len(data))])
    return path


def test_the_path_of_a_video_need_not_be_in_utf_8(tmp_path: Path) -> None:
    """OpenCV takes such a name for a text, and crashes."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    write_video(folder / "walk.mp4", (corner_frame(index) for index in range(3)), rate=10)
    (folder / "text.mp4").write_text("text")
    assert len(list(VideoFile.open(folder / "walk.mp4"))) == 3
    with pytest.raises(DatasetError, match="not a video that OpenCV can read"):
        VideoFile.open(folder / "text.mp4")


def test_ffmpeg_says_nothing_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It would, in the user's terminal, of every frame that is damaged."""
    noise = np.random.default_rng(0)
    frames = (noise.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in range(40))
    write_video(tmp_path / "walk.mp4", frames, rate=10)
    data = bytearray((tmp_path / "walk.mp4").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(place % 251 for place in range(3000))
    (tmp_path / "walk.mp4").write_bytes(data)
    count = 0
    with contextlib.suppress(DatasetError):
        for _ in VideoFile.open(tmp_path / "walk.mp4"):
            count += 1
    assert 0 < count < 40
    assert capfd.readouterr().err == ""


def test_a_video_that_ends_before_its_length_says_so(tmp_path: Path) -> None:
    video = VideoFile.open(cut_video(tmp_path / "cut.mp4"))
    read = []
    with pytest.raises(DatasetError, match=r"cut\.mp4: the video ends after \d+ of its 60 frames"):
        read.extend(video)
    assert 10 < len(read) < 58


def part_of_a_video(path: Path) -> None:
    """Cut out without encoding anew: the frames up to the next key frame are there, but hidden."""
    ffmpeg("-ss", "2.35", "-i", str(path.with_name("plain.mp4")), "-c", "copy", str(path))


def recording_of_a_screen(path: Path) -> None:
    """Frames only where something changes."""
    chosen = "select=lt(n\\,5)+gt(n\\,20)*not(mod(n\\,9))"
    ffmpeg("-i", str(path.with_name("plain.mp4")), "-vf", chosen, "-fps_mode", "vfr", str(path))


def with_longer_sound(path: Path) -> None:
    sound = ("-f", "lavfi", "-i", "sine=duration=6.6")
    ffmpeg("-i", str(path.with_name("plain.mp4")), *sound, "-c:v", "copy", str(path))


@pytest.mark.parametrize(
    ("name", "make", "frames"),
    [
        ("part.mp4", part_of_a_video, 36),
        ("part.mov", part_of_a_video, 36),
        ("screen.mkv", recording_of_a_screen, 9),
        ("screen.webm", recording_of_a_screen, 9),
        ("sound.mkv", with_longer_sound, 60),
    ],
)
def test_a_whole_video_with_fewer_frames_than_it_seems_to_have_is_whole(
    name: str, make: Callable[[Path], None], frames: int, tmp_path: Path
) -> None:
    write_video(tmp_path / "plain.mp4", (corner_frame(index % 40) for index in range(60)), rate=10)
    make(tmp_path / name)
    video = VideoFile.open(tmp_path / name)
    assert len(list(video)) == frames < video.frames
    cut = tmp_path / f"cut_{name}"
    ffmpeg("-i", str(tmp_path / name), "-c", "copy", "-movflags", "+faststart", str(cut))
    cut.write_bytes(cut.read_bytes()[: int(0.6 * cut.stat().st_size)])
    with pytest.raises(DatasetError, match=f"{cut.name}: the video ends after"):
        list(VideoFile.open(cut))


@pytest.mark.parametrize("name", ["uneven.mkv", "uneven.webm", "uneven.mp4", "uneven.avi"])
def test_frames_are_at_the_times_that_the_container_says(name: str, tmp_path: Path) -> None:
    write_video(tmp_path / "plain.mp4", (corner_frame(index % 40) for index in range(60)), rate=10)
    recording_of_a_screen(tmp_path / name)
    tenths = [0, 1, 2, 3, 4, 27, 36, 45, 54]
    assert tenths_of(open_dataset(tmp_path / name)) == tenths
    frames = Video.open(tmp_path / name).read(stop)
    assert [frame.stamp / 1e8 for frame in frames] == tenths
    assert tenths_of(open_dataset(tmp_path / name, DatasetOptions(rate=5))) == [*range(0, 18, 2)]


def tenths_of(sequences: list[VideoSequence]) -> list[float]:
    (sequence,) = sequences
    return [sample.stamp / 1e8 for sample in sequence.samples()]


def test_times_that_do_not_rise_are_made_up_by_the_rate(tmp_path: Path) -> None:
    """A bare stream has none; Matroska's milliseconds are too coarse for 2000 frames a second."""
    write_video(tmp_path / "plain.mp4", (corner_frame(index) for index in range(5)), rate=10)
    ffmpeg(
        "-i", str(tmp_path / "plain.mp4"), "-c", "copy", "-f", "h264", str(tmp_path / "bare.avc")
    )
    stamps = [stamp for stamp, _ in VideoFile.open(tmp_path / "bare.avc").stamped()]
    assert stamps == [0, 100_000_000, 200_000_000, 300_000_000, 400_000_000]
    write_video(tmp_path / "fast.mkv", (corner_frame(index) for index in range(9)), rate=2000)
    stamps = [stamp for stamp, _ in VideoFile.open(tmp_path / "fast.mkv").stamped()]
    np.testing.assert_allclose(stamps, [500_000 * index for index in range(9)], atol=500_000)
    assert (np.diff(stamps) > 0).all()
