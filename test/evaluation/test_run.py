# SPDX-License-Identifier: Apache-2.0
"""Whole evaluations on tiny sequences, in worker processes, stopped and gone on with."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lazyxmem_ros.cli import main
from lazyxmem_ros.data.bags import BagWriter, StampedImage
from lazyxmem_ros.data.datasets import DatasetOptions, open_dataset
from lazyxmem_ros.data.errors import DamagedBagError, DatasetError
from lazyxmem_ros.evaluation.errors import EvaluationError, MethodError
from lazyxmem_ros.evaluation.fingerprint import fingerprint
from lazyxmem_ros.evaluation.job import JobReport, completed_report, run_job
from lazyxmem_ros.evaluation.methods import MethodOptions, choose_methods
from lazyxmem_ros.evaluation.plan import EvaluationPlan, Job, TrackerSettings
from lazyxmem_ros.evaluation.run import evaluate
from lazyxmem_ros.evaluation.simulated_operator import Gesture, OperatorConfig
from lazyxmem_ros.lazy import OFF, LazyConfig

MakeTree = Callable[..., Path]
OFTEN = LazyConfig(operator_rate=0.0, operator_entropy=0.0, pseudo_rate=OFF, cooldown_frames=3)
"""Asks whenever it may, so that a tiny untrained network has something to show."""


class Watcher:
    """An Observer that takes notes."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.kept: list[str] = []
        self.run: list[str] = []

    def planned(self, names: Sequence[str], frames: Sequence[int]) -> None:
        self.names = list(names)

    def progressed(self, name: str, frames: int) -> None:
        pass

    def finished(self, report: JobReport, *, kept: bool) -> None:
        (self.kept if kept else self.run).append(report.name)


def plan_of(root: Path, weights: Path, methods: list[str], **changes: object) -> EvaluationPlan:
    plan = EvaluationPlan(
        tuple(open_dataset(root)),
        tuple(choose_methods(methods, MethodOptions(OFTEN))),
        TrackerSettings(weights, device="cpu"),
        OperatorConfig(Gesture.MASK),
        workers=2,
        random_repeats=2,
    )
    return replace(plan, **changes)  # type: ignore[arg-type]


@pytest.fixture
def two_walks(make_tree: MakeTree) -> Path:
    make_tree("walk", 10, {index: (1, 2) for index in range(10)})
    return make_tree("run", 8, {index: (1,) for index in range(8)})


def test_parallel_run_then_everything_is_kept(
    two_walks: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    plan = plan_of(two_walks, tiny_weights, ["xmem", "lazy", "random"], save_masks=True)
    watcher = Watcher()
    results = evaluate(plan, tmp_path / "out", watcher)
    assert len(watcher.names) == 8  # two sequences, xmem + lazy + random twice
    assert sorted(watcher.run) == sorted(watcher.names)
    dataset = results.dataset.set_index("method")
    assert dataset.loc["lazy", "corrections"] > 0
    assert dataset.loc["random", "corrections"] == dataset.loc["lazy", "corrections"]
    assert dataset.loc["xmem", "corrections"] == 0
    assert dataset.loc["lazy", "j_mean"] > dataset.loc["xmem", "j_mean"]
    assert len(results.frames) == 4 * (10 * 2 + 8)
    with Image.open(tmp_path / "out/jobs/walk/lazy/masks/00004.png") as mask:
        assert mask.mode == "P"
        assert mask.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
        assert set(np.unique(np.asarray(mask))) <= {0, 1, 2}

    again = Watcher()
    repeated = evaluate(plan, tmp_path / "out", again)
    assert again.run == []
    pd.testing.assert_frame_equal(
        repeated.dataset.set_index("method").sort_index(), dataset.sort_index()
    )
    other = Watcher()
    evaluate(replace(plan, operator=OperatorConfig(Gesture.BOX)), tmp_path / "out", other)
    assert sorted(other.run) == sorted(watcher.names), "other settings, other results"


def test_other_weights_of_the_corrector_are_another_job(
    two_walks: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(two_walks, tiny_weights, ["lazy"])
    job = Job(plan.sequences[0], plan.methods[0], plan.tracker, plan.operator)
    seen = set()
    for content in ("one", "other"):
        file = tmp_path / content
        file.write_text(content)
        monkeypatch.setattr(
            "lazyxmem_ros.evaluation.fingerprint.corrector_weights", lambda *_, file=file: file
        )
        seen.add(fingerprint(job))
        seen.add(fingerprint(job))
    assert len(seen) == 2


def test_other_code_is_another_job(
    two_walks: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(two_walks, tiny_weights, ["lazy"])
    job = Job(plan.sequences[0], plan.methods[0], plan.tracker, plan.operator)
    seen = {fingerprint(job)}
    for version in ("one", "two"):
        package = tmp_path / version
        (package / "lazy").mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "lazy" / "policy.py").write_text("AREA = 1\n" if version == "one" else "")
        monkeypatch.setattr("lazyxmem_ros.__file__", str(package / "__init__.py"))
        seen.add(fingerprint(job))
        seen.add(fingerprint(job))
    assert len(seen) == 3


def test_another_number_of_threads_is_the_same_job(two_walks: Path, tiny_weights: Path) -> None:
    plan = plan_of(two_walks, tiny_weights, ["lazy"])
    settings = [replace(plan.tracker, threads=number) for number in (1, 8)]
    jobs = [Job(plan.sequences[0], plan.methods[0], entry, plan.operator) for entry in settings]
    assert fingerprint(jobs[0]) == fingerprint(jobs[1])


def test_other_data_is_another_job(two_walks: Path, tiny_weights: Path, tmp_path: Path) -> None:
    plan = plan_of(two_walks, tiny_weights, ["lazy"])
    drive, masks, first = tmp_path / "drive", tmp_path / "masks", tmp_path / "first.png"
    walking_bag(drive, 3)
    masks.mkdir()
    for mask in (first, masks / f"{10**9}.png"):
        Image.fromarray(np.ones((64, 96), np.uint8)).save(mask)
    options = DatasetOptions(masks=masks, first_mask=first, passes=2)
    (bag,) = open_dataset(drive, options)
    walk = next(sequence for sequence in plan.sequences if sequence.name == "walk")
    for sequence, file in (
        (walk, two_walks / "JPEGImages/480p/walk/00003.jpg"),
        (walk, two_walks / "Annotations/480p/walk/00003.png"),
        (bag, next(drive.glob("*.db3"))),
        (bag, masks / f"{10**9}.png"),
        (bag, first),
    ):
        job = Job(sequence, plan.methods[0], plan.tracker, plan.operator)
        before = fingerprint(job)
        list(sequence.samples())
        assert fingerprint(job) == before, "only looked at"
        content = file.read_bytes()
        file.write_bytes(content[:-1] + b"+")  # of equal length
        assert fingerprint(job) != before, file.name
        file.write_bytes(content)


def test_what_is_edited_during_a_run_did_not_make_its_results(
    two_walks: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(two_walks, tiny_weights, ["xmem"])
    job = Job(plan.sequences[0], plan.methods[0], plan.tracker, plan.operator)
    edited = tmp_path / "edited"
    edited.mkdir()

    def edit(frames: int) -> None:
        monkeypatch.setattr("lazyxmem_ros.__file__", str(edited / "__init__.py"))

    run_job(job, tmp_path / "out", edit)
    assert completed_report(job, tmp_path / "out") is None
    monkeypatch.undo()
    assert completed_report(job, tmp_path / "out") is not None


def test_what_is_missing_is_run_again_and_nothing_twice(
    two_walks: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    plan = plan_of(two_walks, tiny_weights, ["xmem", "lazy"], workers=1)
    whole = evaluate(plan, tmp_path / "out", Watcher())
    (tmp_path / "out/jobs/walk/lazy/job.json").unlink()
    (tmp_path / "out/jobs/run/xmem/job.json").write_text("{ cut sho")
    watcher = Watcher()
    results = evaluate(plan, tmp_path / "out", watcher)
    assert sorted(watcher.run) == ["run/xmem", "walk/lazy"]
    columns = ["sequence", "method", "index", "object", "j"]
    order = columns[:4]
    pd.testing.assert_frame_equal(
        results.frames[columns].sort_values(order, ignore_index=True),
        whole.frames[columns].sort_values(order, ignore_index=True),
    )


def test_one_bad_sequence_does_not_spoil_the_rest(
    two_walks: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    for mask in (two_walks / "Annotations/480p/run").glob("*.png"):
        mask.unlink()
    plan = plan_of(two_walks, tiny_weights, ["xmem"], workers=1)
    results = evaluate(plan, tmp_path / "out", Watcher())
    errors = {report.name: report.error for report in results.reports}
    assert errors["walk/xmem"] is None
    assert "no frame with both an image and a mask" in str(errors["run/xmem"])
    assert set(results.frames["sequence"]) == {"walk"}
    with pytest.raises(DatasetError, match="no frame with both an image and a mask"):
        evaluate(replace(plan, strict=True), tmp_path / "strict", Watcher())
    alone = replace(plan, sequences=tuple(s for s in plan.sequences if s.name == "run"))
    with pytest.raises(EvaluationError, match="nothing could be evaluated: run: no frame"):
        evaluate(alone, tmp_path / "nothing", Watcher())


def test_no_times_are_drawn_where_nothing_was_tracked(
    two_walks: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    for mask in (two_walks / "Annotations/480p/run").glob("*.png"):
        mask.unlink()
    plan = plan_of(two_walks, tiny_weights, ["random"], workers=1, random_repeats=1)
    results = evaluate(plan, tmp_path / "out", Watcher())
    failed = {report.name for report in results.reports if report.error}
    assert failed == {"run/lazy", "run/random"}
    assert set(results.frames["method"]) == {"lazy", "random"}


def test_plans_are_checked(two_walks: Path, tiny_weights: Path) -> None:
    plan = plan_of(two_walks, tiny_weights, ["random"])
    with pytest.raises(MethodError, match="random needs lazy, which is not run"):
        replace(plan, methods=(plan.methods[-1],))
    with pytest.raises(EvaluationError, match="at least 1"):
        replace(plan, workers=0)


class PageReader(HTMLParser):
    """Collects images, links and text."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[str] = []
        self.references: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "img":
            self.images.append(str(values["src"]))
        self.references += [str(values[name]) for name in ("href", "src") if name in values]

    def handle_data(self, data: str) -> None:
        self.text += data


def command(root: Path, weights: Path, out: Path, *more: str) -> list[str]:
    installed = shutil.which("lazyxmem")
    program = "import sys; from lazyxmem_ros.cli import main; sys.exit(main(sys.argv[1:]))"
    start = [installed] if installed else [sys.executable, "-c", program]
    arguments = ["evaluate", str(root), "--weights", str(weights), "--out", str(out)]
    thresholds = ["--operator-rate", "0", "--pseudo-rate", "inf", "--cooldown", "3"]
    return [*start, *arguments, *thresholds, "--device", "cpu", *more]


def test_command_writes_tables_and_a_self_contained_report(
    two_walks: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    (two_walks / "JPEGImages/480p/walk/00004.jpg").write_bytes(b"")
    out = tmp_path / "out"
    done = subprocess.run(
        command(two_walks, tiny_weights, out, "--methods", "xmem,lazy", "--format", "csv"),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1 fault(s) in the input were skipped" in done.stdout
    for level in ("frames", "events", "objects", "sequences", "dataset"):
        assert len(pd.read_csv(out / f"{level}.csv"))
    page = PageReader()
    page.feed((out / "report.html").read_text(encoding="utf-8"))
    assert len(page.images) >= 6  # three figures, a timeline per object, worst frames
    assert all(reference.startswith(("data:image/", "#")) for reference in page.references)
    for word in ("xmem", "lazy", "J&F", "walk", "run", "00004.jpg: the image cannot be read"):
        assert word in page.text


def walking_bag(path: Path, frames: int) -> None:
    """A bag of images alone, with a wandering square."""
    with BagWriter(path, storage="sqlite3") as writer:
        for index in range(frames):
            image = np.full((64, 96, 3), 60, np.uint8)
            image[10:30, 5 + 2 * index : 25 + 2 * index] = (220, 60, 40)
            writer.write_image("/camera", StampedImage(10**9 + index * 10**8, image))


def test_without_ground_truth_what_can_be_known(tmp_path: Path, tiny_weights: Path) -> None:
    walking_bag(tmp_path / "drive", 8)
    labels = np.zeros((64, 96), np.uint8)
    labels[10:30, 5:25] = 1
    Image.fromarray(labels).save(tmp_path / "first.png")
    out = tmp_path / "out"
    call = command(tmp_path / "drive", tiny_weights, out, "--first-mask")
    call += [str(tmp_path / "first.png"), "--workers", "1"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "no ground truth" in done.stdout
    frames = pd.read_parquet(out / "frames.parquet")
    assert set(frames["method"]) == {"xmem", "udu", "pseudo", "lazy"}
    assert len(frames) == 4 * 8
    assert not frames["scored"].any()
    assert frames["uncertainty"].notna().all()
    events = pd.read_parquet(out / "events.parquet")
    assert set(events["method"]) == {"lazy"}
    assert not events["applied"].any()
    assert set(events["outcome"]) == {"the frame is not annotated"}
    dataset = pd.read_parquet(out / "dataset.parquet").set_index("method")
    assert dataset.loc["xmem", ["coverage", "stability"]].notna().all()
    page = PageReader()
    page.feed((out / "report.html").read_text(encoding="utf-8"))
    assert "there is no ground truth" in page.text


def test_a_damaged_bag_keeps_what_came_before(tmp_path: Path, tiny_weights: Path) -> None:
    noise = np.random.default_rng(0)
    with BagWriter(tmp_path / "drive", storage="mcap") as writer:
        for index in range(200):
            image = noise.integers(0, 256, (64, 96, 3), dtype=np.uint8)
            writer.write_image("/camera", StampedImage(10**9 + index * 10**8, image))
    labels = np.zeros((64, 96), np.uint8)
    labels[10:30, 5:25] = 1
    Image.fromarray(labels).save(tmp_path / "first.png")
    (file,) = (tmp_path / "drive").glob("*.mcap")
    data = bytearray(file.read_bytes())
    hole = slice(int(0.80 * len(data)), int(0.81 * len(data)))
    data[hole] = bytes(hole.stop - hole.start)
    file.write_bytes(data)
    options = DatasetOptions(first_mask=tmp_path / "first.png")
    (sequence,) = open_dataset(tmp_path / "drive", options)
    settings = TrackerSettings(tiny_weights, device="cpu")
    plan = EvaluationPlan((sequence,), tuple(choose_methods(["xmem"])), settings)
    results = evaluate(plan, tmp_path / "out", Watcher())
    assert "drive: cannot be read" in str(results.reports[0].error)
    assert 0 < len(results.frames) < 200
    with pytest.raises(DamagedBagError, match="drive: cannot be read"):
        evaluate(replace(plan, strict=True), tmp_path / "strict", Watcher())


def test_a_bag_cut_short_is_named(tmp_path: Path, tiny_weights: Path) -> None:
    walking_bag(tmp_path / "drive", 20)
    (file,) = (tmp_path / "drive").glob("*.db3")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    settings = TrackerSettings(tiny_weights, device="cpu")
    sequences = tuple(open_dataset(tmp_path / "drive"))
    plan = EvaluationPlan(sequences, tuple(choose_methods(["xmem"])), settings)
    with pytest.raises(EvaluationError, match=r"nothing could be evaluated: .*cannot be read"):
        evaluate(plan, tmp_path / "out", Watcher())


def test_command_explains_bad_input(
    tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(tmp_path / "nowhere"), "--weights", str(tiny_weights)]) == 1
    assert "nowhere: there is no such file or folder" in capsys.readouterr().err.replace("\n", "")
    assert main(["evaluate", "scene", "--weights", str(tiny_weights), "--workers", "0"]) == 1
    assert "--workers must be at least 1, got 0" in capsys.readouterr().err


def test_command_counts_what_could_not_be_evaluated(
    two_walks: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for mask in (two_walks / "Annotations/480p/run").glob("*.png"):
        mask.unlink()
    arguments = ["evaluate", str(two_walks), "--weights", str(tiny_weights), "--device", "cpu"]
    arguments += ["--out", str(tmp_path / "out"), "--methods", "xmem", "--workers", "1"]
    assert main(arguments) == 1
    printed = capsys.readouterr().out
    assert "1 sequence(s) could not be evaluated to the end" in printed
    assert "run: no frame with both an image and a mask" in printed
    assert "R@0.25" in printed, "the table is too wide for 80 columns"


def group_ends(group: int, *, within: float) -> bool:
    """Whether a process group is empty before so many seconds have passed."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
def test_interrupted_it_goes_on_from_what_is_finished(
    make_tree: MakeTree, tiny_weights: Path, tmp_path: Path
) -> None:
    for name in ("one", "two", "three", "four"):
        root = make_tree(name, 30, {index: (1,) for index in range(30)})
    out = tmp_path / "out"
    call = command(root, tiny_weights, out, "--methods", "xmem,lazy,every", "--workers", "2")
    started = subprocess.Popen(
        call, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 90
    while len(list(out.glob("jobs/*/*/job.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(started.pid, signal.SIGINT)  # as the terminal does
    assert started.wait(timeout=30) == 130
    finished = len(list(out.glob("jobs/*/*/job.json")))
    assert 2 <= finished < 12
    assert "interrupted; what was finished is kept" in started.stderr.read()
    assert group_ends(started.pid, within=10), "a process was left behind"
    done = subprocess.run(call, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("kept from an earlier run") == finished
    assert len(pd.read_parquet(out / "frames.parquet")) == 4 * 3 * 30


def workers_of(parent: int) -> list[int]:
    """The worker processes of an evaluation: the children of its fork server."""
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = entry.read_text().rpartition(")")[2].split()
            below.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    return [worker for child in below.get(parent, []) for worker in below.get(child, [])]


@pytest.mark.slow
def test_a_killed_worker_ends_the_evaluation_in_one_sentence(
    make_tree: MakeTree, tiny_weights: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        root = make_tree(name, 28, {index: (1,) for index in range(28)})
    out = tmp_path / "out"
    call = command(root, tiny_weights, out, "--methods", "xmem,lazy,every", "--workers", "2")
    started = subprocess.Popen(
        call, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 90
    while not list(out.glob("jobs/*/*/job.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(workers_of(started.pid)[0], signal.SIGKILL)
    _, errors = started.communicate(timeout=30)
    assert started.returncode == 1, errors
    assert "a worker process was ended from outside" in errors
    assert "Traceback" not in errors
    assert group_ends(started.pid, within=10), "a process was left behind"
