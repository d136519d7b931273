# SPDX-License-Identifier: Apache-2.0
"""`lazyxmem track` on input with something wrong in it: right, or named, counted, exit code 1."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import cv2
import numpy as np
import pytest
from full_disk import files_of_at_most
from numpy.typing import NDArray
from PIL import Image
from trees import save_tiny_weights

from lazyxmem_ros.cli import main
from lazyxmem_ros.data.errors import DatasetError
from lazyxmem_ros.data.outputs import MARKER
from lazyxmem_ros.images.files import write_video
from lazyxmem_ros.lazy import LazyConfig, StepResult, Track, TrackState, open_tracker
from lazyxmem_ros.track import TrackedFrame, Video, track_frames
from lazyxmem_ros.track.output import TrackRows
from lazyxmem_ros.weights import CACHE_VARIABLE

FRAMES = 12
SIZE = (64, 96)


def square(index: int) -> NDArray[np.bool_]:
    mask = np.zeros(SIZE, bool)
    mask[20:44, 20 + index : 50 + index] = True
    return mask


def picture(index: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).integers(0, 90, (*SIZE, 3), dtype=np.uint8)
    return np.where(square(index)[..., None], noise + 150, noise).astype(np.uint8)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A folder with `frames` and the mask of the first, `first.png`."""
    folder = tmp_path / "clip"
    (folder / "frames").mkdir(parents=True)
    for index in range(FRAMES):
        cv2.imwrite(str(folder / "frames" / f"{index}.jpg"), picture(index)[..., ::-1])
    Image.fromarray(np.where(square(0), np.uint8(255), np.uint8(0))).save(folder / "first.png")
    return folder


def track(video: Path, mask: Path, out: Path, *options: str, overlay: bool = False) -> int:
    """With a network that is small and knows nothing: what it tracks is no matter here."""
    weights = video.parent / "tiny.safetensors"
    if not weights.is_file():
        save_tiny_weights(video.parent)
    command = ["track", str(video), "--mask", str(mask), "--out", str(out), "--device", "cpu"]
    drawn = () if overlay else ("--no-overlay",)
    return main([*command, "--weights", str(weights), *drawn, *options])


def order(out: Path) -> list[str]:
    with (out / "tracks.csv").open() as file:
        return [row["frame"] for row in csv.DictReader(file)]


def test_unpadded_names_come_in_natural_order(clip: Path, tmp_path: Path) -> None:
    assert track(clip / "frames", clip / "first.png", tmp_path / "out") == 0
    assert order(tmp_path / "out") == [str(index) for index in range(FRAMES)]


def test_a_mask_among_the_frames_is_no_frame(clip: Path, tmp_path: Path) -> None:
    shutil.copy(clip / "first.png", clip / "frames" / "0.png")
    assert track(clip / "frames", clip / "frames" / "0.png", tmp_path / "out") == 0
    assert order(tmp_path / "out") == [str(index) for index in range(FRAMES)]


def test_a_frame_that_is_cut_short_is_left_out_and_named(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = clip / "frames" / "5.jpg"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert track(clip / "frames", clip / "first.png", tmp_path / "out") == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "1 fault(s) in the input" in said
    assert "5.jpg: the image cannot be read" in said
    assert f"{FRAMES - 1} of {FRAMES} frames were tracked" in said
    assert order(tmp_path / "out") == [str(index) for index in range(FRAMES) if index != 5]
    assert track(clip / "frames", clip / "first.png", tmp_path / "strict", "--strict") == 1
    assert "5.jpg: the image cannot be read" in " ".join(capsys.readouterr().err.split())
    assert order(tmp_path / "strict") == [str(index) for index in range(5)]


def test_a_frame_of_another_size_says_what_to_do(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(clip / "frames" / "5.jpg"), picture(5)[::2, ::2])
    assert track(clip / "frames", clip / "first.png", tmp_path / "out") == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "frame 5: is of 48x32 pixels, the first of 96x64; scale all frames alike" in said
    assert len(order(tmp_path / "out")) == FRAMES - 1


def test_without_the_first_frame_there_is_nothing_to_track(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clip / "frames" / "0.jpg").write_bytes(b"nothing")
    assert track(clip / "frames", clip / "first.png", tmp_path / "out") == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "0.jpg: the image cannot be read" in said
    assert "the mask is of this first frame" in said


def test_what_is_no_file_is_named_and_does_not_hang(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = clip / "frames"
    os.mkfifo(frames / "20.jpg")
    (frames / "21.jpg").symlink_to("/dev/zero")
    (frames / "22.jpg").symlink_to("22.jpg")
    assert track(frames, clip / "first.png", tmp_path / "out") == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "3 fault(s) in the input" in said
    assert said.count("it is a device or a pipe, not a file") == 2
    assert "22.jpg: the image cannot be read: [Errno 40]" in said
    os.rename(frames / "20.jpg", os.fsencode(frames) + b"/\xe4.jpg")
    assert track(frames, clip / "first.png", tmp_path / "out") == 1
    assert "is not in UTF-8" in capsys.readouterr().err


def test_an_overlay_of_an_earlier_run_is_not_removed_before_it_is_tracked(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    write_video(out / "overlay.mp4", map(picture, range(3)), rate=10)
    assert track(out / "overlay.mp4", clip / "first.png", out) == 1
    assert "choose another --out" in " ".join(capsys.readouterr().err.split())
    assert (out / "overlay.mp4").is_file()
    assert track(out / "overlay.mp4", clip / "first.png", tmp_path / "other") == 0


def test_a_mask_among_the_results_of_an_earlier_run_is_not_removed(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert track(clip / "frames", clip / "first.png", out) == 0
    edited = shutil.copy(clip / "first.png", out / "masks" / "edited.png")
    assert track(clip / "frames", edited, out) == 1
    assert "copy it, or choose another folder as --out" in " ".join(capsys.readouterr().err.split())
    assert edited.is_file()


def test_a_video_none_of_whose_frames_can_be_decoded_is_named(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few it announces. The results of an earlier run stay."""
    write_video(clip / "two.mp4", map(picture, range(2)), rate=10)
    assert track(clip / "two.mp4", clip / "first.png", tmp_path / "out", overlay=True) == 0
    before = sorted((tmp_path / "out").rglob("*"))
    monkeypatch.setattr("lazyxmem_ros.data.videos._Capture.read", lambda self: None)
    assert track(clip / "two.mp4", clip / "first.png", tmp_path / "out", overlay=True) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "two.mp4: the video ends after 0 of its 2 frames" in said
    assert "overlay" not in said
    assert sorted((tmp_path / "out").rglob("*")) == before


def test_a_first_frame_without_an_image_is_refused(clip: Path) -> None:
    tracker = open_tracker(save_tiny_weights(clip), LazyConfig(), device="cpu")
    frames = [("0", None), ("1", picture(1))]
    with pytest.raises(DatasetError, match="frame 0: the first frame has no image"):
        list(track_frames(frames, tracker, {1: square(0)}))


@pytest.mark.parametrize("rate", [None, 10.0])
def test_a_frame_that_cannot_be_read_is_told_and_left_out(clip: Path, rate: float | None) -> None:
    (clip / "frames" / "2.jpg").write_bytes(b"no picture")
    video = Video.open(clip / "frames")
    tracker = open_tracker(save_tiny_weights(clip), LazyConfig(), device="cpu")
    faults: list[str] = []
    tracked = track_frames(video, tracker, {1: square(0)}, rate=rate, faulty=faults.append)
    assert "2" not in [frame.name for frame in tracked]
    [fault] = faults
    assert "2.jpg: the image cannot be read" in fault
    tracker.reset()
    with pytest.raises(DatasetError, match=r"2\.jpg"):
        list(track_frames(video, tracker, {1: square(0)}, rate=rate))


@pytest.mark.parametrize("rate", [-5.0, 0.0, float("nan")])
@pytest.mark.parametrize("name", ["frames", "clip.mp4"])
def test_a_rate_that_cannot_be_meant_is_refused(clip: Path, name: str, rate: float) -> None:
    write_video(clip / "clip.mp4", map(picture, range(2)), rate=10)
    with pytest.raises(DatasetError, match="frames per second"):
        Video.open(clip / name, rate)


@pytest.mark.parametrize(
    "broken", [FileNotFoundError("/no/ffmpeg"), RuntimeError("No ffmpeg exe could be found")]
)
def test_without_an_encoder_everything_is_tracked(
    broken: Exception,
    clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nowhere() -> str:
        raise broken

    monkeypatch.setattr("imageio_ffmpeg.get_ffmpeg_exe", nowhere)
    out = tmp_path / "out"
    assert track(clip / "frames", clip / "first.png", out, overlay=True) == 1
    assert "no overlay:" in capsys.readouterr().out
    assert len(list((out / "masks").iterdir())) == len(list((clip / "frames").iterdir()))


def test_whatever_the_tracker_refuses_is_told_and_left_out(clip: Path) -> None:
    tracker = open_tracker(save_tiny_weights(clip), LazyConfig(), device="cpu")
    frames = [("0", picture(0)), ("1", [1, 2]), ("2", picture(2)[:8]), ("3", picture(3))]
    faults: list[str] = []
    tracked = track_frames(frames, tracker, {1: square(0)}, faulty=faults.append)
    assert [frame.name for frame in tracked] == ["0", "3"]
    assert [fault.partition(":")[0] for fault in faults] == ["frame 1", "frame 2"]
    assert "RGB uint8" in faults[0]
    assert "scale all frames alike" in faults[1]


@pytest.mark.parametrize(
    ("video", "options", "reason"),
    [
        ("frames", ("--rate", "nan"), "--rate is frames per second, 0.001 to 10000, not nan"),
        ("frames", ("--rate", "-5"), "--rate is frames per second"),
        ("frames", ("--corrector-weights", "x.pth"), "--corrector-weights needs a --corrector"),
        (
            "frames",
            ("--corrector-weights", "x.pth", "--corrector", "grabcut"),
            "grabcut takes no checkpoint",
        ),
        ("frames", ("--corrector", "sam_hq"), "`lazyxmem weights fetch sam-hq-tiny`"),
        (
            "frames",
            ("--corrector", "sam_hq", "--corrector-model", "vit_b"),
            "`lazyxmem weights fetch sam-hq-b`",
        ),
        ("frames", ("--corrector-model", "vit_b"), "--corrector-model needs a --corrector"),
        (
            "frames",
            ("--corrector", "refiner", "--corrector-model", "vit_b"),
            "give it with --corrector sam_hq",
        ),
        ("text.mp4", (), "not a video that OpenCV can read"),
        ("frames/0.jpg", (), "is one picture, no video; give the folder in which the frames lie"),
        (
            "walk.mcap.zstd",
            (),
            "is a bag, no video; `lazyxmem evaluate` reads it with --layout bag",
        ),
    ],
)
def test_what_cannot_be_tracked_says_why(
    video: str,
    options: tuple[str, ...],
    reason: str,
    clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    for name in ("text.mp4", "walk.mcap.zstd"):
        (clip / name).write_text("text")
    assert track(clip / video, clip / "first.png", tmp_path / "out", *options) == 1
    assert reason in capsys.readouterr().err


def test_an_output_that_cannot_be_is_named(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    assert track(clip / "frames", clip / "first.png", tmp_path / "file" / "out") == 1
    assert "cannot be written to: Not a directory" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "masks").write_text("mine")
    assert track(clip / "frames", clip / "first.png", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert f"{tmp_path / 'out' / 'masks'}: is there already" in said
    assert "choose another folder as --out" in said


@pytest.mark.parametrize(
    ("size", "overlay", "name"),
    [
        (500, True, "masks/0.png cannot be written: File too large"),
        (500, False, "masks/0.png cannot be written: File too large"),
        (2000, False, "tracks.csv cannot be written to: File too large; make room"),
    ],
)
def test_a_full_disk_is_named_and_leaves_no_broken_file(
    size: int,
    overlay: bool,
    name: str,
    clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not overlay:  # of many objects the rows take more than the masks
        labels = np.repeat(np.arange(8, dtype=np.uint8), SIZE[1] // 8)
        Image.fromarray(np.tile(labels, (SIZE[0], 1))).save(clip / "first.png")
    save_tiny_weights(clip)
    with files_of_at_most(size):
        assert track(clip / "frames", clip / "first.png", tmp_path / "out", overlay=overlay) == 1
    said = capsys.readouterr()
    assert name in said.err, said
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err
    for file in (tmp_path / "out").rglob("*"):
        if file.suffix == ".png":
            with Image.open(file) as mask:
                mask.load()
        else:
            assert file.name in ("masks", "tracks.csv", MARKER)


def test_an_overlay_that_cannot_be_encoded_ends_no_tracking(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tiny_weights(clip)
    with files_of_at_most(2000):
        assert track(clip / "frames", clip / "first.png", tmp_path / "out", overlay=True) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "no overlay:" in said
    assert "overlay.mp4: the video could not be encoded" in said
    assert order(tmp_path / "out") == [str(index) for index in range(FRAMES)]
    assert len(list((tmp_path / "out" / "masks").iterdir())) == FRAMES
    assert not (tmp_path / "out" / "overlay.mp4").exists()


def test_a_video_that_ends_early_is_named(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0)
    frames = [noise.integers(0, 256, (*SIZE, 3), dtype=np.uint8) for _ in range(40)]
    write_video(clip / "cut.mp4", frames, rate=10)
    data = (clip / "cut.mp4").read_bytes()
    (clip / "cut.mp4").write_bytes(data[: int(0.5 * len(data))])
    assert track(clip / "cut.mp4", clip / "first.png", tmp_path / "out") == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "cut.mp4: the video ends after" in said
    assert "of its 40 frames" in said
    assert len(order(tmp_path / "out")) < 38


def test_masks_of_an_earlier_run_go_and_those_of_others_are_refused(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert track(clip / "frames", clip / "first.png", out) == 0
    for index in range(4, FRAMES):
        (clip / "frames" / f"{index}.jpg").unlink()
    assert track(clip / "frames", clip / "first.png", out) == 0
    assert sorted(file.stem for file in (out / "masks").iterdir()) == ["0", "1", "2", "3"]
    other = tmp_path / "other"
    (other / "masks").mkdir(parents=True)
    shutil.copy(clip / "first.png", other / "masks" / "mine.png")
    assert track(clip / "frames", clip / "first.png", other) == 1
    assert "masks: is there already, and a run of lazyxmem track would" in capsys.readouterr().err
    assert (other / "masks" / "mine.png").is_file()
    (out / "overlay.mp4").mkdir()
    assert track(clip / "frames", clip / "first.png", out) == 1
    assert "overlay.mp4 cannot be written to: Is a directory" in capsys.readouterr().err
    assert len(list((out / "masks").iterdir())) == 4
    (out / "overlay.mp4").rmdir()
    shutil.copy(clip / "first.png", out / "masks" / "mine.png")
    assert track(clip / "frames", clip / "first.png", out) == 1
    assert "mine.png: lies among the masks of an earlier run" in capsys.readouterr().err
    assert len(list((out / "masks").iterdir())) == 5


def test_an_object_that_is_never_found_again_has_no_uncertainty(tmp_path: Path) -> None:
    def result(area: int) -> StepResult:
        track = Track(1, "", TrackState.LOST, (0, 0, 9, 9), area, 0.0, None, None)
        return cast(StepResult, SimpleNamespace(tracks=[track]))

    for areas, cells in (
        ((500, 0, 0), ["0 of 2 later frames", "never found", "never found"]),
        ((500, 9, 0), ["1 of 2 later frames", "0.000", "0.000"]),
        ((500,), ["-", "-", "-"]),
    ):
        with TrackRows(tmp_path) as rows:
            for number, area in enumerate(areas):
                labels = np.zeros((1, 500), np.uint16)
                labels[0, :area] = 1
                rows.add(TrackedFrame(str(number), picture(0), result(area), labels))
        table = rows.summary()
        assert [next(iter(column.cells)) for column in table.columns] == ["1", *cells]


@pytest.mark.parametrize(
    ("name", "said"),
    [("soft", "a soft mask of"), ("colours", "RGB picture is no label map"), ("depth", "depth")],
)
def test_what_is_no_label_map_is_refused(
    name: str, said: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    binary = np.where(square(0), np.uint8(255), np.uint8(0))
    picture_of = {
        "soft": cv2.GaussianBlur(binary, (0, 0), 3),
        "colours": np.dstack([binary, binary // 2, 0 * binary]),
        "depth": np.arange(SIZE[0] * SIZE[1], dtype=np.uint16).reshape(SIZE),
    }[name]
    Image.fromarray(picture_of).save(clip / "odd.png")
    assert track(clip / "frames", clip / "odd.png", tmp_path / "out") == 1
    error = " ".join(capsys.readouterr().err.split())
    assert said in error
    assert "--binary" in error
    if name != "depth":
        assert track(clip / "frames", clip / "odd.png", tmp_path / "out", "--binary") == 0
        with (tmp_path / "out" / "tracks.csv").open() as file:
            assert {row["id"] for row in csv.DictReader(file)} == {"1"}
