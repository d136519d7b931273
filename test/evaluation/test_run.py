# SPDX-License-Identifier: Apache-2.0
"""Whole evaluations on tiny sequences, in worker processes, and what is kept of them."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from evaluations import Watcher, plan_of, walking_bag
from PIL import Image
from rich.console import Console

from lazyxmem_ros.data.bag_messages import StampedImage
from lazyxmem_ros.data.bag_writer import BagWriter
from lazyxmem_ros.data.datasets import open_dataset
from lazyxmem_ros.data.errors import DamagedBagError, DatasetError, OutputError
from lazyxmem_ros.data.layouts.options import DatasetOptions
from lazyxmem_ros.data.outputs import alone_in
from lazyxmem_ros.data.samples import Sample, VideoSequence
from lazyxmem_ros.evaluation.display import Display
from lazyxmem_ros.evaluation.errors import EvaluationError
from lazyxmem_ros.evaluation.job import JobReport, run_job
from lazyxmem_ros.evaluation.methods import choose_methods
from lazyxmem_ros.evaluation.plan import EvaluationPlan, Job, TrackerSettings
from lazyxmem_ros.evaluation.run import LEVELS, Results, evaluate
from lazyxmem_ros.evaluation.simulated_operator import Gesture, OperatorConfig


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
    lazy = tuple(method for method in plan.methods if method.name == "lazy")
    boxed = replace(plan, methods=lazy, operator=OperatorConfig(Gesture.BOX), workers=1)
    evaluate(boxed, tmp_path / "out", other)
    assert sorted(other.run) == ["run/lazy", "walk/lazy"], "other settings, other results"


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


def test_a_damaged_bag_keeps_what_came_before(tmp_path: Path, tiny_weights: Path) -> None:
    noise = np.random.default_rng(0)
    with BagWriter(tmp_path / "drive", storage="mcap") as writer:
        for index in range(80):
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
    plan = EvaluationPlan(
        sequences=(sequence,), methods=tuple(choose_methods(["xmem"])), tracker=settings
    )
    results = evaluate(plan, tmp_path / "out", Watcher())
    assert "drive: cannot be read" in str(results.reports[0].error)
    assert 0 < len(results.frames) < 80
    with pytest.raises(DamagedBagError, match="drive: cannot be read"):
        evaluate(replace(plan, strict=True), tmp_path / "strict", Watcher())


def test_a_bag_cut_short_is_named(tmp_path: Path, tiny_weights: Path) -> None:
    walking_bag(tmp_path / "drive", 20)
    (file,) = (tmp_path / "drive").glob("*.db3")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    settings = TrackerSettings(tiny_weights, device="cpu")
    sequences = tuple(open_dataset(tmp_path / "drive"))
    plan = EvaluationPlan(
        sequences=sequences, methods=tuple(choose_methods(["xmem"])), tracker=settings
    )
    with pytest.raises(EvaluationError, match=r"nothing could be evaluated: .*cannot be read"):
        evaluate(plan, tmp_path / "out", Watcher())


def test_tables_of_an_earlier_run_in_another_format_go(tmp_path: Path) -> None:
    """They would lie beside the new ones and look as current."""
    table = pd.DataFrame({"jf": [0.5]})
    results = Results(table, table, table, table, table, ())
    (tmp_path / "others.csv").write_text("not ours")
    for kind in ("csv", "parquet", "csv"):
        paths = results.save(tmp_path, kind=kind)
        assert sorted(paths) == sorted(tmp_path / f"{level}.{kind}" for level in LEVELS)
        assert sorted(tmp_path.iterdir()) == sorted([*paths, tmp_path / "others.csv"])


def test_progress_that_is_told_after_the_end_brings_no_bar_back() -> None:
    """A worker's queue may be slower than its result."""
    console = Console(file=io.StringIO(), force_terminal=True)
    display = Display(console)
    with display:
        display.planned(["walk/xmem"], [10])
        display.progressed("walk/xmem", 4)
        display.finished(
            JobReport(name="walk/xmem", frames=10, seconds=1.0, faults=(), error=None), kept=False
        )
        display.progressed("walk/xmem", 9)
        (total,) = display._progress.tasks
        assert total.completed == 10


@dataclass(frozen=True)
class Broken:
    """A sequence that breaks off after some frames."""

    whole: VideoSequence
    length: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)

    def __len__(self) -> int:
        return len(self.whole)

    def samples(self) -> Iterator[Sample]:
        yield from itertools.islice(self.whole.samples(), self.length)
        raise DatasetError(f"{self.name}: it broke off")


class Here:
    """Runs jobs in this process; of some, by name, the sequence breaks off."""

    def __init__(self, broken: Mapping[str, int]) -> None:
        self._broken = broken

    def run(self, jobs: list[Job], folder: Path, progressed: Any, finished: Any) -> None:
        waiting = list(jobs)
        while waiting:
            job = tried = waiting.pop(0)
            if job.name in self._broken:
                tried = replace(job, sequence=Broken(job.sequence, self._broken[job.name]))
            waiting += finished(job, run_job(tried, folder))


@pytest.mark.parametrize("length", [0, 3])
def test_methods_are_compared_where_all_of_them_ran_as_far(
    length: int, two_walks: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    plan = plan_of(two_walks, tiny_weights, ["xmem", "lazy", "random"])
    whole = evaluate(plan, tmp_path / "whole", Watcher(), Here({}))
    assert not whole.uneven_note
    alone = replace(plan, sequences=tuple(s for s in plan.sequences if s.name == "walk"))
    expected = evaluate(alone, tmp_path / "alone", Watcher(), Here({}))
    results = evaluate(plan, tmp_path / "out", Watcher(), Here({"run/lazy": length}))
    assert results.uneven == ("run",)
    assert results.uneven_note.startswith("left out of the figures of all sequences: run,")
    figures = ["method", "sequences", "frames", "jf", "corrections", "gain_per_correction"]
    pd.testing.assert_frame_equal(results.dataset[figures], expected.dataset[figures])
    assert set(results.sequences["sequence"]) == {"walk", "run"}
    not_run = [r.error for r in results.reports if "was not run: run/lazy" in str(r.error)]
    assert len(not_run) == (0 if length else 2)  # random, twice
    # Where no sequence is left there are figures, but no gains.
    only = evaluate(alone, tmp_path / "only", Watcher(), Here({"walk/lazy": 3}))
    assert only.uneven_note.startswith("no methods can be compared: walk,")
    assert list(only.dataset["method"]) == ["xmem", "lazy", "random"]
    assert only.dataset["gain_per_correction"].isna().all()


def test_methods_that_break_off_together_are_compared(
    two_walks: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    plan = plan_of(two_walks, tiny_weights, ["xmem", "lazy"])
    broken = Here({"run/lazy": 6, "run/xmem": 6})
    results = evaluate(plan, tmp_path / "out", Watcher(), broken)
    assert results.uneven == ()
    assert set(results.dataset["sequences"]) == {2}


def test_two_runs_do_not_share_a_folder(
    two_walks: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    plan = plan_of(two_walks, tiny_weights, ["xmem"])
    with (
        alone_in(tmp_path),
        pytest.raises(OutputError, match="another run is writing there"),
    ):
        evaluate(plan, tmp_path, Watcher())
