# SPDX-License-Identifier: Apache-2.0
"""`lazyxmem track` from files to files, with the embedded model."""

import csv
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from lazyxmem_ros.basics import Labels
from lazyxmem_ros.cli import main
from lazyxmem_ros.correction.base import Corrector, box_of_mask
from lazyxmem_ros.data.label_maps import read_label_map, save_label_map
from lazyxmem_ros.data.pond import Scene, SceneConfig
from lazyxmem_ros.images.files import write_video
from lazyxmem_ros.lazy import LazyTracker, StepResult
from lazyxmem_ros.track import frames as track_frames

FRAMES = 6


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first frames of the generated scene as a folder, a video and a mask."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / "frames").mkdir()
    images = []
    for frame in islice(Scene(SceneConfig()), FRAMES):
        cv2.imwrite(str(folder / "frames" / f"{frame.index:05d}.png"), frame.image[..., ::-1])
        images.append(frame.image)
        if frame.index == 0:
            save_label_map(folder / "first.png", frame.labels)
    write_video(folder / "clip.mp4", images, rate=10)
    return folder


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_a_video(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, video = tmp_path / "out [1]", clip / "clip.mp4"
    command = ["track", str(video), "--mask", str(clip / "first.png"), "--out", str(out)]
    assert main([*command, "--device", "cpu"]) == 0
    assert f"written to {out}\n" in capsys.readouterr().out
    masks = sorted((out / "masks").iterdir())
    assert [m.stem for m in masks] == [f"{i:05d}" for i in range(FRAMES)]
    assert (out / "overlay.mp4").stat().st_size > 1000
    with (out / "tracks.csv").open() as file:
        rows = list(csv.DictReader(file))
    first, last = read_label_map(masks[0]), read_label_map(masks[-1])
    ids = set(np.unique(first).tolist()) - {0}
    assert {int(row["id"]) for row in rows} == ids
    assert len(rows) == FRAMES * len(ids)
    predicted = [row["predicted_iou"] for row in rows if int(row["frame"]) > 0]
    assert all(0 < float(value or "nan") <= 1 for value in predicted)
    given = read_label_map(clip / "first.png")
    assert iou(first > 0, given > 0) > 0.9
    assert iou(last > 0, given > 0) > 0.3, "the objects move little in six frames"


def test_a_folder_with_pseudo_corrections(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are about the masks that are written, which a correction may have changed."""
    correct = track_frames._correct_itself

    def change(tracker: LazyTracker, corrector: Corrector, result: StepResult) -> Labels:
        labels = correct(tracker, corrector, result).copy()
        labels[:, :40] = 0
        labels[400:430, 10:15] = 1
        return labels

    monkeypatch.setattr(track_frames, "_correct_itself", change)
    command = ["track", str(clip / "frames"), "--mask", str(clip / "first.png")]
    assert main([*command, "--out", str(tmp_path), "--corrector", "grabcut", "--no-overlay"]) == 0
    masks = [read_label_map(file) for file in sorted((tmp_path / "masks").iterdir())]
    assert len(masks) == FRAMES
    assert not (tmp_path / "overlay.mp4").exists()
    with (tmp_path / "tracks.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row, labels in zip(rows, masks, strict=True):
        shown = labels == int(row["id"])
        assert int(row["area"]) == shown.sum()
        assert tuple(int(row[name]) for name in ("x0", "y0", "x1", "y1")) == box_of_mask(shown)


@pytest.mark.parametrize(
    ("video", "mask", "fault"),
    [
        ("nowhere", "first.png", "no such video or folder"),
        ("torn.mp4", "first.png", "OpenCV"),
        ("empty", "first.png", "no images"),
        ("frames", "black.png", "mask is empty"),
        ("frames", "small.png", "the mask is of 64x48 pixels"),
        ("frames", "none.png", "cannot be read"),
    ],
)
def test_faults_end_as_one_sentence(
    video: str,
    mask: str,
    fault: str,
    clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (clip / "empty").mkdir(exist_ok=True)
    (clip / "torn.mp4").write_bytes(b"no video")
    save_label_map(clip / "black.png", np.zeros((480, 640), np.uint16))
    save_label_map(clip / "small.png", np.ones((48, 64), np.uint16))
    (tmp_path / "masks").mkdir()
    earlier = [tmp_path / "tracks.csv", tmp_path / "masks" / "00000.png"]
    for result in earlier:
        result.write_bytes(b"an earlier run's")
    command = ["track", str(clip / video), "--mask", str(clip / mask), "--out", str(tmp_path)]
    assert main(command) == 1
    error = " ".join(capsys.readouterr().err.split())
    assert fault in error
    assert "Traceback" not in error
    assert all(result.is_file() for result in earlier), "nothing is lost"
