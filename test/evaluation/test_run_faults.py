# SPDX-License-Identifier: Apache-2.0
"""`lazyxmem evaluate` on input with something wrong in it: the reason is said, and counted."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import imageio_ffmpeg
import numpy as np
import pandas as pd
import pytest
from full_disk import files_of_at_most
from PIL import Image
from rich.console import Console

from lazyxmem_ros.cli import main
from lazyxmem_ros.data.bag_messages import IMAGE_TYPE, StampedImage, StampedLabels
from lazyxmem_ros.data.bag_writer import BagWriter
from lazyxmem_ros.data.datasets import open_dataset
from lazyxmem_ros.data.label_maps import read_label_map
from lazyxmem_ros.entry import interruptible
from lazyxmem_ros.evaluation import command, executors
from lazyxmem_ros.evaluation.job import JobReport, skipped_faults
from lazyxmem_ros.evaluation.offline import SequenceRunner
from lazyxmem_ros.evaluation.worst_frames import WorstFrames
from lazyxmem_ros.images.files import WriteError, write_video

pytestmark = pytest.mark.usefixtures("undrawn")

MakeTree = Callable[..., Path]


def test_ctrl_c_loses_no_worker_that_is_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would end it, and it would complain once its parent is gone."""
    begun = []

    def submit(*_: object) -> Future[JobReport]:
        signal.raise_signal(signal.SIGINT)
        begun.append(True)
        return Future()

    monkeypatch.setattr(ProcessPoolExecutor, "submit", submit)
    pool = executors._ProcessPool(2, tmp_path, lambda name, frames: None)
    with interruptible(), pytest.raises(KeyboardInterrupt):
        pool.submit(SimpleNamespace(name="job"))
    assert begun
    pool.abandon([])


def test_ctrl_c_reaches_no_worker_nor_what_begins_them(tmp_path: Path) -> None:
    """The terminal sends it to all: while they import, it would be told as their fault."""
    code = (
        "from lazyxmem_ros.evaluation import executors\n"
        "from multiprocessing import forkserver\n"
        "executors._ProcessPool(2, None, print)\n"
        "print(open(f'/proc/{forkserver._forkserver._forkserver_pid}/status').read())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (blocked,) = (line.split()[1] for line in told.stdout.splitlines() if "SigBlk" in line)
    assert int(blocked, 16) >> (signal.SIGINT - 1) & 1


@pytest.fixture
def evaluate(tiny_weights: Path, tmp_path: Path) -> Callable[..., int]:
    """Runs the command on a path with a tiny network, one process and method xmem."""

    def run(path: Path, *options: str) -> int:
        command = ["evaluate", str(path), "--weights", str(tiny_weights), "--device", "cpu"]
        command += ["--workers", "1", "--out", str(tmp_path / "out"), *options]
        return main([*command, *([] if "--methods" in options else ["--methods", "xmem"])])

    return run


def folder_of(root: Path, masks: Callable[[np.ndarray], Image.Image], *suffixes: str) -> Path:
    """Four frames, and masks of a square made by `masks` from one with 255 in it; PNG, or in the
    formats of the suffixes by turns.
    """
    for index in range(4):
        image = np.random.default_rng(index).integers(0, 200, (48, 64, 3), dtype=np.uint8)
        mask = np.zeros((48, 64), np.uint8)
        mask[10:30, 5 + index : 25 + index] = 255
        for name, picture, end in (
            ("frames", Image.fromarray(image), ".jpg"),
            ("masks", masks(mask), suffixes[index % len(suffixes)] if suffixes else ".png"),
        ):
            file = root / name / f"{index:05d}{end}"
            file.parent.mkdir(parents=True, exist_ok=True)
            picture.save(file)
    return root


def in_colour(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack([mask, 0 * mask, mask // 2]))


def of_half_the_size(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(mask[::2, ::2]))


@pytest.mark.parametrize(
    ("masks", "reason"),
    [
        (in_colour, r"00000.png: an RGB picture is no label map"),
        (of_half_the_size, r"frame 00000: the mask is 32x24, the image 64x48"),
    ],
)
def test_nothing_to_track_says_why(
    masks: Callable[[np.ndarray], Image.Image],
    reason: str,
    evaluate: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert evaluate(folder_of(tmp_path / "walk", masks)) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "walk: no frame with both an image and a mask of an object to track, because" in said
    assert reason in said
    assert "and 2 more such faults" in said


def test_without_masks_it_says_how_to_give_them(
    evaluate: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with BagWriter(tmp_path / "drive") as bag:
        bag.write_image("/camera", StampedImage(10**9, np.zeros((48, 64, 3), np.uint8)))
    assert evaluate(tmp_path / "drive") == 1
    assert "--first-mask or --truth-topic" in " ".join(capsys.readouterr().err.split())


def test_the_advice_is_of_use_in_every_layout(
    make_tree: MakeTree,
    evaluate: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What it says is done, and the evaluation runs."""
    tree = make_tree("walk", 2, {})
    mask = tmp_path / "one.png"
    Image.fromarray(np.pad(np.full((20, 20), 255, np.uint8), ((9, 35), (9, 67)))).save(mask)
    for options in ((), ("--graph",)):
        assert evaluate(tree, *options) == 1
        said = " ".join(capsys.readouterr().err.split())
        folder = tree / "Annotations/480p/walk"
        assert f"label maps that show one, named as the frames are, into {folder}" in said
        assert "--masks" not in said
    shutil.copy(mask, folder / "00000.png")
    assert evaluate(tree) == 0
    frames = tree / "JPEGImages/480p/walk"
    assert evaluate(frames, "--layout", "folder") == 1
    assert "with --masks or --first-mask" in " ".join(capsys.readouterr().err.split())
    assert evaluate(frames, "--first-mask", str(mask)) == 0


@pytest.mark.parametrize(
    ("masks", "suffixes", "options"),
    [(in_colour, [".png"], ["--binary"]), (Image.fromarray, [".PNG", ".TIF"], [])],
)
def test_masks_that_can_be_read_are(
    masks: Callable[[np.ndarray], Image.Image],
    suffixes: list[str],
    options: list[str],
    evaluate: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert evaluate(folder_of(tmp_path / "walk", masks, *suffixes), *options) == 0
    assert "frames: 4 asked for, 4 read, 4 tracked, 3 scored" in capsys.readouterr().out


def test_paths_that_are_not_in_utf_8_are_shown_escaped(
    evaluate: Callable[..., int], tmp_path: Path
) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    walk = folder_of(folder / "walk", Image.fromarray)
    (walk / "frames" / "00002.jpg").write_bytes(b"no image")
    out = folder / "results"
    assert evaluate(walk, "--out", str(out)) == 0
    assert r"caf\udce9/walk/frames/00002.jpg: the image cannot be read" in (
        (out / "report.html").read_text(encoding="utf-8")
    )


def test_what_was_asked_for_names_the_views(
    evaluate: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    walk = folder_of(tmp_path / "walk", Image.fromarray)
    assert evaluate(walk, "--every-nth-frame", "2", "--twin") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "frames: 2 asked for with --every-nth-frame 2, --twin, 2 read, 2 tracked" in said


def test_frames_that_a_container_only_estimates_are_not_asked_for(
    evaluate: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of an uneven rate Matroska says the length, from which OpenCV makes 20 frames."""
    frames = (np.full((48, 64, 3), 10 * index, np.uint8) for index in range(20))
    write_video(tmp_path / "plain.mp4", frames, rate=10)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(tmp_path / "plain.mp4")]
    command += ["-vf", "select=lt(n\\,5)+gt(n\\,15)", "-fps_mode", "vfr"]
    subprocess.run([*command, str(tmp_path / "walk.mkv")], check=True)
    (sequence,) = open_dataset(tmp_path / "walk.mkv")
    assert len(sequence) == 20
    mask = tmp_path / "first.png"
    Image.fromarray(np.pad(np.full((20, 20), 255, np.uint8), ((9, 19), (9, 35)))).save(mask)
    assert evaluate(tmp_path / "walk.mkv", "--first-mask", str(mask)) == 0
    assert "frames: 9 asked for, 9 read, 9 tracked" in capsys.readouterr().out


def test_faults_are_counted_by_frame(
    evaluate: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bag whose stamps are all 0 loses every frame but the first."""
    with BagWriter(tmp_path / "drive") as bag:
        for index in range(10):
            image = np.full((48, 64, 3), 10 * index, np.uint8)
            labels = np.zeros((48, 64), np.uint16)
            labels[10:30, 5:25] = 1
            bag.write_image("/camera", StampedImage(0, image))
            bag.write_labels("/truth", StampedLabels(0, labels))
    command = ["--image-topic", "/camera", "--truth-topic", "/truth", "--methods", "xmem,lazy"]
    assert evaluate(tmp_path / "drive", *command) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "9 fault(s) in the input were skipped" in said
    assert "(9 times)" in said
    assert "frames: 10 asked for, 10 read, 1 tracked, 0 scored" in said


def test_a_bag_that_cannot_be_opened_adds_no_frame(
    evaluate: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = np.zeros((48, 64), np.uint16)
    labels[10:30, 5:25] = 1
    for name in ("drive", "labels", "nothing"):
        with BagWriter(tmp_path / "bags" / name) as bag:
            for stamp in range(10**9, 4 * 10**9, 10**9):
                if name == "drive":
                    image = np.zeros((48, 64, 3), np.uint8)
                    bag.write_image("/camera", StampedImage(stamp, image))
                if name != "nothing":
                    bag.write_labels("/truth", StampedLabels(stamp, labels))
            for topic in ("/camera", "/truth") if name == "nothing" else ():
                bag.declare(topic, IMAGE_TYPE)
    assert evaluate(tmp_path / "bags", "--truth-topic", "/truth") == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "the bag has no images to track" in said
    assert "nothing: the sequence is empty" in said
    assert "frames: 3 asked for, 3 read, 3 tracked, 2 scored" in said


def test_faults_of_several_methods_are_those_of_one() -> None:
    reports = [
        JobReport(name="walk/xmem", frames=1, seconds=1.0, faults=("a", "a", "b"), error=None),
        JobReport(name="walk/lazy", frames=1, seconds=1.0, faults=("a", "a", "c"), error=None),
        JobReport(name="run/xmem", frames=1, seconds=1.0, faults=("a",), error=None),
    ]
    counted = skipped_faults(reports)
    assert counted == {"walk: a": 2, "walk: b": 1, "walk: c": 1, "run: a": 1}


def test_the_frames_that_went_all_the_way_are_those_of_the_worst_run() -> None:
    reports = [
        JobReport(
            name="walk/xmem",
            frames=2,
            seconds=1.0,
            faults=(),
            error=None,
            asked=9,
            read=9,
            scored=1,
        ),
        JobReport(
            name="walk/lazy",
            frames=8,
            seconds=1.0,
            faults=(),
            error="broken off",
            asked=9,
            read=8,
            scored=7,
        ),
    ]
    console = Console(record=True, file=io.StringIO())
    command._print_frames(reports, console)
    said = console.export_text()
    assert said == "frames: 9 asked for, 8 read, 2 tracked, 1 scored\n"


def test_an_internal_error_is_named_and_costs_one_run(
    make_tree: MakeTree,
    evaluate: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_tree("walk", 5, {index: (1,) for index in range(5)})
    root = make_tree("run", 5, {index: (1,) for index in range(5)})
    whole = SequenceRunner._track

    def failing(self: SequenceRunner, sample: object) -> object:
        if self._method.name == "lazy" and sample.index == 3:  # type: ignore[attr-defined]
            raise RuntimeError("torch.cat(): expected a non-empty list of Tensors")
        return whole(self, sample)  # type: ignore[arg-type]

    monkeypatch.setattr(SequenceRunner, "_track", failing)
    assert evaluate(root, "--methods", "xmem,lazy", "--sequences", "run,walk") == 1
    said = " ".join(capsys.readouterr().out.split())
    file = tmp_path / "out" / "jobs" / "walk" / "lazy" / "traceback.txt"
    assert "walk/lazy: internal error: RuntimeError: torch.cat(): expected" in said
    assert "run/lazy: internal error" in said
    assert "Traceback" in file.read_text()
    assert "test_run_faults.py" in file.read_text()
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    early = page.partition("<h2>Runs that ended early</h2>")[2].partition("<h2>")[0]
    assert early.count("<li>") == 2
    assert "<li>walk/lazy: internal error: RuntimeError" in early
    assert "Faults in the input" not in page
    frames = pd.read_parquet(tmp_path / "out" / "frames.parquet")
    assert frames.groupby(["sequence", "method"])["index"].nunique().to_dict() == {
        ("run", "lazy"): 3,
        ("run", "xmem"): 5,
        ("walk", "lazy"): 3,
        ("walk", "xmem"): 5,
    }


def test_a_write_that_fails_costs_its_run_and_those_that_ask_as_often(
    make_tree: MakeTree,
    evaluate: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_tree("walk", 5, {index: (1,) for index in range(5)})
    root = make_tree("run", 5, {index: (1,) for index in range(5)})
    whole = WorstFrames.save

    def failing(self: WorstFrames, folder: Path) -> None:
        if "run/lazy" in str(folder):
            raise WriteError(f"{folder} cannot be written: File too large")
        whole(self, folder)

    monkeypatch.setattr(WorstFrames, "save", failing)
    assert evaluate(root, "--methods", "lazy,random", "--repeats", "1") == 1
    said = capsys.readouterr().out
    assert "run/lazy/worst cannot be written: File too large" in said
    assert "was not run: run/lazy, as often as which it asks, has no results" in said
    frames = pd.read_parquet(tmp_path / "out" / "frames.parquet")
    assert set(frames["sequence"] + "/" + frames["method"]) == {"walk/lazy", "walk/random"}
    monkeypatch.undo()
    assert evaluate(root, "--methods", "lazy,random", "--repeats", "1") == 0


def test_names_of_frames_are_as_long_as_names_can_be(
    evaluate: Callable[..., int], tmp_path: Path
) -> None:
    walk = folder_of(tmp_path / "walk", Image.fromarray)
    for file in (*(walk / "frames").iterdir(), *(walk / "masks").iterdir()):
        file.rename(file.with_stem(file.stem + (251 - len(file.stem)) * "x"))
    assert evaluate(walk, "--save-masks") == 0
    assert len(list((tmp_path / "out/jobs/walk/xmem/worst").iterdir())) == 3


def test_masks_with_high_ids_are_saved_with_16_bits(
    evaluate: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def with_high_id(mask: np.ndarray) -> Image.Image:
        return Image.fromarray((mask > 0).astype(np.uint16) * 300)

    assert evaluate(folder_of(tmp_path / "walk", with_high_id), "--save-masks") == 0
    assert capsys.readouterr().out.count("have 16 bits") == 1
    saved = sorted((tmp_path / "out/jobs/walk/xmem/masks").iterdir())
    assert len(saved) == 4
    assert 300 in np.unique(read_label_map(saved[0]))


@pytest.mark.parametrize(
    ("size", "options", "name"),
    [
        (1000, ("--save-masks",), "jobs/walk/xmem/frames.parquet"),
        (9000, (), "jobs/walk/xmem/frames.parquet"),
        (12_000, (), "jobs/walk/xmem/worst/0.jpg"),
    ],
)
def test_a_full_disk_is_named_and_leaves_no_broken_file(
    size: int,
    options: tuple[str, ...],
    name: str,
    evaluate: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    walk = folder_of(tmp_path / "walk", Image.fromarray)
    with files_of_at_most(size):
        assert evaluate(walk, *options) == 1
    said = capsys.readouterr().err
    assert f"{name} cannot be written: File too large" in said, said
    assert "Traceback" not in said
    left = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert all(file.stat().st_size < size for file in left), left
    assert evaluate(walk, *options) == 0  # once there is room


@pytest.mark.parametrize(
    ("options", "name"), [((), "/objects.parquet"), (("--format", "csv"), "/report.html")]
)
def test_a_full_disk_keeps_the_earlier_results(
    options: tuple[str, ...],
    name: str,
    evaluate: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where its runs are complete."""
    walk = folder_of(tmp_path / "walk", Image.fromarray)
    assert evaluate(walk, *options) == 0
    before = (tmp_path / "out" / "report.html").read_bytes()
    with files_of_at_most(12_000):
        assert evaluate(walk, *options) == 1
    assert f"{name} cannot be written: File too large" in capsys.readouterr().err
    assert (tmp_path / "out" / "report.html").read_bytes() == before


@pytest.mark.parametrize("name", ["jobs", "dataset.csv", "report.html"])
def test_what_no_evaluation_has_made_is_not_replaced(
    name: str, evaluate: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    walk = folder_of(tmp_path / "walk", Image.fromarray)
    (tmp_path / "out" / name).mkdir(parents=True)
    assert evaluate(walk) == 1
    assert f"out/{name}: is there already" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "out").iterdir()] == [name]


def test_a_folder_that_cannot_be_has_its_name_in_the_error(
    evaluate: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    walk = folder_of(tmp_path / "walk", Image.fromarray)
    (tmp_path / "out").write_text("mine")
    assert evaluate(walk) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path / 'out'} cannot be written to: File exists; make room, or choose" in said


def test_tables_of_the_other_format_go(evaluate: Callable[..., int], tmp_path: Path) -> None:
    walk = folder_of(tmp_path / "walk", Image.fromarray)
    for kind, other in (("csv", "parquet"), ("parquet", "csv")):
        assert evaluate(walk, "--format", kind) == 0
        assert (tmp_path / "out" / f"frames.{kind}").is_file()
        assert not (tmp_path / "out" / f"frames.{other}").exists()


def test_masks_of_no_frame_are_named(
    evaluate: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A video's that are numbered from another number on, a bag's with other stamps."""
    walk = folder_of(tmp_path / "walk", Image.fromarray)
    frames = [np.asarray(Image.open(file)) for file in sorted((walk / "frames").iterdir())]
    write_video(tmp_path / "walk.mp4", frames, rate=10)
    masks = sorted((walk / "masks").iterdir())
    for number, file in reversed(list(enumerate(masks))):
        file.rename(file.with_stem(f"{number + 1}"))
    assert evaluate(tmp_path / "walk.mp4", "--masks", str(walk / "masks")) == 0
    said = capsys.readouterr().out
    assert "1 fault(s) in the input" in said
    assert "4.png: no frame has this number (from 0 on)" in said
    (walk / "masks" / "4.png").rename(walk / "masks" / "03.png")
    assert evaluate(tmp_path / "walk.mp4", "--masks", str(walk / "masks")) == 1
    assert "are both of frame 3" in capsys.readouterr().err
    with BagWriter(tmp_path / "bag") as bag:
        for index, image in enumerate(frames):
            stamp = 10**18 + index * 10**8
            bag.write_image("/image", StampedImage(stamp, image))
            labels = np.ones((48, 64), np.uint16)
            bag.write_labels("/truth", StampedLabels(stamp + 1, labels))
    assert evaluate(tmp_path / "bag", "--truth-topic", "/truth") == 1
    said = capsys.readouterr().err
    assert "/truth, label map of 1000000000000000001 ns: no image has this stamp" in said
